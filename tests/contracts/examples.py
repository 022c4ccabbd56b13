"""A few values of every registered block with inputs they take: what the contracts run over.

A new block needs a row here; a registered block without one fails its contract.
"""

from search_spaces.architecture import Block, Shape
from search_spaces.attention_blocks import LinearAttention, MobileViT
from search_spaces.blocks import Classifier, Conv, InvertedResidual, MaxPool, NormActivation
from search_spaces.densenet_blocks import DenseLayer, Transition
from search_spaces.efficientnet_blocks import FusedMBConv, MBConv
from search_spaces.ghost_blocks import GhostBottleneck, GhostConv
from search_spaces.mix_blocks import MixConv
from search_spaces.mobilenet_blocks import DepthwiseSeparable, UniversalInvertedBottleneck
from search_spaces.nasbench201_blocks import NasBench201Cell, NasBench201Reduction
from search_spaces.reparametrized_blocks import MobileOne, RepVGG
from search_spaces.resnet_blocks import ResidualBasic, ResidualBottleneck
from search_spaces.shuffle_blocks import GroupedInvertedResidual, GroupedShuffleUnit, ShuffleUnit
from search_spaces.squeezenet_blocks import ConvClassifier, Fire, PlainConv
from search_spaces.vit_blocks import PatchEmbedding, TokenClassifier, Transformer

CONV1, CONV3, POOL, SKIP, NONE = "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none"

EXAMPLES: dict[str, tuple[tuple[Block, Shape], ...]] = {
    "classifier": (
        (Classifier(classes=5), (12, 4, 4)),
        (Classifier(classes=5, hidden=16, dropout=0.2), (12, 7, 5)),
        (Classifier(classes=3, hidden=8, norm=True, activation="relu"), (12, 4, 4)),
    ),
    "conv": (
        (Conv(width=8, stride=2), (3, 15, 16)),
        (Conv(width=12, kernel=1, groups=4, activation="none"), (8, 6, 6)),
    ),
    "conv_classifier": ((ConvClassifier(classes=4, dropout=0.5), (6, 5, 5)),),
    "dense_layer": ((DenseLayer(growth=6, hidden=24), (10, 6, 6)),),
    "depthwise_separable": ((DepthwiseSeparable(width=12, kernel=5, stride=2), (8, 9, 9)),),
    "fire": (
        (Fire(squeezed=4, point_width=8, spatial_width=6), (10, 6, 6)),
        (Fire(squeezed=4, point_width=8, spatial_width=8, kernel=5, norm=True, residual=True), (16, 6, 6)),
    ),
    "fused_mbconv": (
        (FusedMBConv(width=8, hidden=20), (8, 6, 6)),
        (FusedMBConv(width=12, hidden=20, stride=2, activation="relu"), (8, 7, 7)),
    ),
    "ghost_bottleneck": (
        (GhostBottleneck(width=8, hidden=20, se=4), (8, 6, 6)),
        (GhostBottleneck(width=12, hidden=18, kernel=5, stride=2), (8, 7, 7)),
    ),
    "ghost_conv": (
        (GhostConv(width=9), (6, 5, 5)),
        (GhostConv(width=12, kernel=3, cheap_kernel=5, ratio=3), (6, 5, 5)),
    ),
    "grouped_inverted_residual": (
        (GroupedInvertedResidual(width=8, hidden=8), (8, 6, 6)),
        (GroupedInvertedResidual(width=12, hidden=24, groups=4, kernel=5, stride=2), (8, 6, 6)),
    ),
    "grouped_shuffle_unit": (
        (GroupedShuffleUnit(width=24, hidden=6), (24, 6, 6)),
        (GroupedShuffleUnit(width=24, hidden=6, stride=2), (12, 7, 7)),
        (GroupedShuffleUnit(width=36, hidden=9, group_first=False), (24, 6, 6)),
        (GroupedShuffleUnit(width=8, hidden=4, groups=1), (8, 6, 6)),
    ),
    "inverted_residual": (
        (InvertedResidual(width=8, hidden=24), (8, 6, 6)),
        (InvertedResidual(width=12, hidden=8, expand=False, se=4, stride=2, activation="hard_swish"), (8, 7, 7)),
    ),
    "linear_attention": (
        (LinearAttention(heads=2, head_width=4), (8, 6, 5)),
        (LinearAttention(heads=3, head_width=4, scales=()), (8, 4, 4)),
        (LinearAttention(heads=1, head_width=8, scales=(3, 5)), (8, 4, 4)),
    ),
    "max_pool": ((MaxPool(), (4, 9, 9)), (MaxPool(padded=False), (4, 9, 9))),
    "mbconv": (
        (MBConv(width=8, hidden=24, se=2), (8, 6, 6)),
        (MBConv(width=12, hidden=8, expand=False, kernel=5, stride=2), (8, 7, 7)),
    ),
    "mix_conv": (
        (MixConv(width=8, hidden=24, kernels=(3, 5, 7), se=8), (8, 9, 9)),
        (MixConv(width=12, hidden=17, stride=2), (8, 9, 9)),
    ),
    "mobileone": (
        (MobileOne(width=12, stride=2), (8, 7, 7)),
        (MobileOne(width=8, kernel=5, branches=2, deployed=False), (8, 6, 6)),
    ),
    "mobilevit": (
        (MobileViT(width=16, depth=1, hidden=24, heads=2), (8, 6, 4)),
        (MobileViT(width=8, depth=2, hidden=8, heads=4, patch=1, activation="hard_swish"), (8, 5, 5)),
    ),
    "nasbench201_cell": (
        (NasBench201Cell(operators=(CONV3, CONV1, POOL, SKIP, NONE, CONV3)), (8, 6, 6)),
        (NasBench201Cell(operators=(CONV3, NONE, CONV1, SKIP, NONE, NONE)), (8, 6, 6)),
        (NasBench201Cell(operators=(POOL, SKIP, NONE, NONE, CONV3, POOL), literal=True), (8, 6, 6)),
        (NasBench201Cell(operators=(NONE,) * 6), (8, 6, 6)),
    ),
    "nasbench201_reduction": ((NasBench201Reduction(width=12), (6, 8, 8)),),
    "norm_activation": ((NormActivation(), (6, 5, 5)),),
    "patch_embedding": (
        (PatchEmbedding(width=12, patch=4), (3, 16, 12)),
        (PatchEmbedding(width=12, patch=5, class_token=False), (3, 16, 16)),
    ),
    "plain_conv": (
        (PlainConv(width=8, stride=2, padded=False), (3, 15, 15)),
        (PlainConv(width=8, kernel=5), (3, 8, 8)),
    ),
    "repvgg": (
        (RepVGG(width=12, stride=2), (8, 7, 7)),
        (RepVGG(width=8, groups=2, deployed=False), (8, 6, 6)),
        (RepVGG(width=8, kernel=5, stride=2, deployed=False), (8, 6, 6)),
    ),
    "residual_basic": (
        (ResidualBasic(width=8, hidden=12), (8, 6, 6)),
        (ResidualBasic(width=12, hidden=12, stride=2), (8, 7, 7)),
    ),
    "residual_bottleneck": (
        (ResidualBottleneck(width=16, hidden=8), (16, 6, 6)),
        (ResidualBottleneck(width=16, hidden=16, groups=4, se=2, stride=2), (8, 7, 7)),
    ),
    "shuffle_unit": (
        (ShuffleUnit(width=16, hidden=8, se=4), (16, 6, 6)),
        (ShuffleUnit(width=24, hidden=12, kernel=5, stride=2), (16, 7, 7)),
    ),
    "token_classifier": (
        (TokenClassifier(classes=4), (9, 8)),
        (TokenClassifier(classes=4, pool="mean"), (9, 8)),
    ),
    "transformer": (
        (Transformer(hidden=20, heads=2), (9, 8)),
        (Transformer(hidden=8, heads=1, activation="silu"), (4, 12)),
    ),
    "transition": ((Transition(width=6), (10, 7, 8)), (Transition(width=6, pool=False), (10, 6, 6))),
    "universal_inverted_bottleneck": (
        (UniversalInvertedBottleneck(width=8, hidden=24), (8, 6, 6)),
        (UniversalInvertedBottleneck(width=12, hidden=24, start_kernel=3, kernel=5, stride=2), (8, 7, 7)),
        (UniversalInvertedBottleneck(width=12, hidden=16, start_kernel=5, kernel=0, stride=2), (8, 7, 7)),
        (UniversalInvertedBottleneck(width=8, hidden=16, kernel=0), (8, 5, 5)),
    ),
}
