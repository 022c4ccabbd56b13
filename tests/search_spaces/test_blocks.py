"""What single blocks compute, beyond the contract that all of them fulfil."""

import math

import pytest
import torch
from torch.nn import functional as F

from search_spaces import counts
from search_spaces.attention_blocks import LinearAttention, MobileViT
from search_spaces.blocks import Classifier, InvertedResidual, MaxPool
from search_spaces.densenet_blocks import DenseLayer
from search_spaces.efficientnet_blocks import FusedMBConv, MBConv
from search_spaces.fusion import fuse_segment
from search_spaces.ghost_blocks import GhostConv
from search_spaces.layers import channel_shuffle
from search_spaces.lowering import lower_block
from search_spaces.mix_blocks import MixConv
from search_spaces.mobilenet_blocks import UniversalInvertedBottleneck
from search_spaces.reparametrized_blocks import RepVGG
from search_spaces.resnet_blocks import ResidualBottleneck
from search_spaces.shuffle_blocks import GroupedInvertedResidual, GroupedShuffleUnit
from search_spaces.squeezenet_blocks import ConvClassifier, Fire
from search_spaces.stages import scaled, square, up_to
from search_spaces.vit_blocks import PatchEmbedding, TokenClassifier, Transformer


def built(block, shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return block.build(shape).eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def macs(block, shape, kind=None):
    return sum(counts.op_macs(op) for op in lower_block(block, shape).ops if kind in (None, op.kind))


def test_linear_attention_equals_its_sum_over_pixels():
    block = LinearAttention(heads=2, head_width=4, scales=())
    module, x = built(block, (8, 3, 5)), noise(1, 8, 3, 5)
    with torch.no_grad():
        qkv = F.conv2d(x, module.qkv.weight).reshape(2, 12, 15).relu()
        value = F.conv2d(x, module.qkv.weight).reshape(2, 12, 15)[:, 8:]
        query, key = qkv[:, :4], qkv[:, 4:8]
        made = torch.zeros(2, 4, 15)
        for head in range(2):
            for pixel in range(15):
                scores = query[head, :, pixel] @ key[head]
                made[head, :, pixel] = (value[head] * scores).sum(1) / (scores.sum() + 1e-6)
        expected = x + module.project(made.reshape(1, 8, 3, 5))
        assert torch.allclose(module(x), expected, atol=1e-5)


def test_linear_attention_products_grow_with_the_number_of_pixels():
    block = LinearAttention(heads=3, head_width=8, scales=(5,))
    heads, width = 2 * 3, 8
    for pixels in (16, 64):
        side = math.isqrt(pixels)
        expected = heads * pixels * (2 * width * width + width)  # keys with values, queries with those, normalizer
        assert macs(block, (24, side, side), "matmul") == expected


def test_transformer_products_grow_with_the_square_of_the_tokens():
    for tokens in (10, 20):
        block = Transformer(hidden=32, heads=2)
        assert macs(block, (tokens, 16), "matmul") == 2 * tokens * tokens * 16
        assert macs(block, (tokens, 16), "linear") == tokens * (4 * 16 * 16 + 2 * 16 * 32)


def test_transformer_equals_torchs_own_layer():
    block = Transformer(hidden=32, heads=4)
    module = built(block, (7, 16))
    reference = torch.nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "project.weight", "self_attn.out_proj.bias": "project.bias",
        "linear1.weight": "mlp.0.weight", "linear1.bias": "mlp.0.bias",
        "linear2.weight": "mlp.2.weight", "linear2.bias": "mlp.2.bias",
        "norm1.weight": "attention_norm.weight", "norm1.bias": "attention_norm.bias",
        "norm2.weight": "mlp_norm.weight", "norm2.bias": "mlp_norm.bias",
    }  # fmt: skip
    state = module.state_dict()
    reference.load_state_dict({theirs: state[ours] for theirs, ours in names.items()})
    x = noise(3, 7, 16)
    with torch.no_grad():
        assert torch.allclose(module(x), reference(x), atol=1e-5)


def test_mobilevit_attends_among_equal_places_of_all_patches():
    """A changed pixel moves those at its own place of every patch of 2 x 2, and no others."""
    module = built(MobileViT(width=8, depth=1, hidden=8, heads=2, kernel=1), (8, 4, 4))
    x = noise(1, 8, 4, 4)
    changed = x.clone()
    changed[..., 0, 1] += 1.0
    with torch.no_grad():
        moved = (module(x) - module(changed)).abs().amax(1)[0] > 1e-7
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[::2, 1::2] = True
    assert torch.equal(moved, expected)


def test_mobilevit_products_are_attention_within_groups_of_pixels():
    block = MobileViT(width=16, depth=3, hidden=32, heads=4, patch=2)
    assert macs(block, (8, 6, 8), "matmul") == 3 * 2 * 4 * 12 * 12 * 16


@pytest.mark.parametrize(
    ("start_kernel", "kernel", "stride", "strides"),
    [(0, 3, 2, [1, 2, 1]), (5, 0, 2, [2, 1, 1]), (3, 5, 2, [1, 1, 2, 1]), (0, 0, 1, [1, 1])],
    ids=["inverted", "convnext", "extra", "feed-forward"],
)
def test_universal_bottleneck_has_the_layers_of_its_form(start_kernel, kernel, stride, strides):
    block = UniversalInvertedBottleneck(width=12, hidden=24, start_kernel=start_kernel, kernel=kernel, stride=stride)
    convolutions = [op for op in lower_block(block, (8, 8, 8)).ops if op.kind == "conv"]
    assert [op.integers("stride")[0] for op in convolutions] == strides


def test_mixed_kernels_take_equal_parts_of_the_channels_and_the_first_the_rest():
    ops = lower_block(MixConv(width=8, hidden=17, kernels=(3, 5, 7)), (8, 9, 9)).ops
    depthwise = [
        (op.integer("groups"), op.integers("kernel")[0]) for op in ops if op.kind == "conv" and op.integer("groups") > 1
    ]
    assert depthwise == [(7, 3), (5, 5), (5, 7)]


def test_ghost_maps_are_the_made_maps_and_cheap_ones_of_them():
    module, x = built(GhostConv(width=9), (6, 5, 5)), noise(1, 6, 5, 5)
    with torch.no_grad():
        made = module.primary(x)
        assert torch.equal(module(x), torch.cat((made, module.cheap(made)[:, :4]), 1))


@pytest.mark.parametrize(
    "block",
    [
        InvertedResidual(width=8, hidden=16),
        MBConv(width=8, hidden=16),
        FusedMBConv(width=8, hidden=16),
        MixConv(width=8, hidden=16),
        UniversalInvertedBottleneck(width=8, hidden=16),
        GroupedInvertedResidual(width=8, hidden=16),
        LinearAttention(heads=1, head_width=8),
    ],
    ids=lambda block: type(block).__name__,
)
def test_a_block_that_keeps_the_shape_adds_its_input(block):
    module, x = built(block, (8, 6, 6)), noise(1, 8, 6, 6)
    with torch.no_grad():
        module.project.norm.weight.zero_()
        assert torch.equal(module(x), x)


@pytest.mark.parametrize(
    "block",
    [
        GroupedShuffleUnit(width=24, hidden=16, groups=4, activation="none"),
        GroupedInvertedResidual(width=24, hidden=48, groups=4, activation="none"),
    ],
    ids=["shuffle unit", "inverted residual"],
)
def test_shuffles_let_every_group_see_every_other(block):
    module, x = built(block, (24, 4, 4)), noise(1, 24, 4, 4)
    changed = x.clone()
    changed[:, 0] += 1.0
    with torch.no_grad():
        assert (module(x) != module(changed)).any(-1).any(-1).all()


def test_dense_layer_keeps_its_input_in_front():
    x = noise(1, 6, 4, 4)
    with torch.no_grad():
        y = built(DenseLayer(growth=3, hidden=12), (6, 4, 4))(x)
    assert y.shape == (1, 9, 4, 4)
    assert torch.equal(y[:, :6], x)


def test_first_shuffle_unit_of_a_stage_pools_and_concatenates_its_input():
    unit, x = GroupedShuffleUnit(width=24, hidden=6, stride=2), noise(1, 12, 8, 8)
    with torch.no_grad():
        y = built(unit, (12, 8, 8))(x)
    assert torch.allclose(y[:, :12], F.avg_pool2d(x, 3, 2, 1).relu())


def test_shuffle_of_one_group_is_no_operation():
    x = noise(1, 4, 2, 2)
    assert channel_shuffle(x, 1) is x
    assert torch.equal(channel_shuffle(x, 2)[0, :, 0, 0], x[0, [0, 2, 1, 3], 0, 0])
    kinds = [
        op.kind for op in fuse_segment(lower_block(GroupedShuffleUnit(width=8, hidden=4, groups=1), (8, 6, 6))).ops
    ]
    assert "channel_shuffle" not in kinds


def test_normalized_head_folds_into_one_linear_layer():
    segment = fuse_segment(lower_block(Classifier(classes=3, hidden=8, norm=True, activation="relu"), (4, 5, 5)))
    assert [op.kind for op in segment.ops] == ["global_avg_pool", "linear", "linear"]


def test_convolutional_head_pools_logits():
    module, x = built(ConvClassifier(classes=3), (4, 5, 5)), noise(1, 4, 5, 5)
    with torch.no_grad():
        expected = (F.conv2d(x, module.conv.weight, module.conv.bias)).relu().mean((2, 3))
        assert torch.allclose(module(x), expected)


def test_unpadded_pooling_loses_the_border():
    assert lower_block(MaxPool(padded=False), (4, 9, 9)).output.shape == (1, 4, 4, 4)
    assert lower_block(MaxPool(), (4, 9, 9)).output.shape == (1, 4, 5, 5)


def test_class_token_and_positions_are_added_before_the_first_layer():
    module = built(PatchEmbedding(width=6, patch=4), (3, 8, 12))
    with torch.no_grad():
        module.class_token.fill_(2.0)
        tokens = module(torch.zeros(2, 3, 8, 12))
        assert tokens.shape == (2, 7, 6)
        assert torch.allclose(tokens[:, 0], 2.0 + module.position[:, 0].expand(2, -1))


def test_scaling_helpers_round_and_drop_repeats():
    assert scaled(24, (0.25, 0.3, 0.5, 1.0)) == (8, 16, 24)
    assert [up_to(depth) for depth in (1, 2, 3, 6)] == [(1,), (1, 2), (1, 2, 3), (1, 3, 6)]
    assert square(1, (32, 40)) == ((1, 32, 32), (1, 40, 40))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniversalInvertedBottleneck(width=8, hidden=8, kernel=0, stride=2), "stride 2 needs a depthwise"),
        (lambda: UniversalInvertedBottleneck(width=8, hidden=8, kernel=4), "kernel must be odd"),
        (lambda: GhostConv(width=8, ratio=1), "ratio must be at least 2, got ratio=1"),
        (lambda: MixConv(width=8, hidden=8, kernels=(3, 3)), "kernels must be different"),
        (lambda: MixConv(width=8, hidden=8, kernels=()), "kernels must be different"),
        (lambda: ResidualBottleneck(width=8, hidden=10, groups=4), "hidden must be a multiple of groups"),
        (lambda: GroupedShuffleUnit(width=25, hidden=6), "must be multiples of groups"),
        (
            lambda: GroupedShuffleUnit(width=24, hidden=6).build((30, 4, 4)),
            "3 groups cannot take 30 channels to 24 with -6",
        ),
        (lambda: GroupedInvertedResidual(width=8, hidden=8).build((7, 4, 4)), "2 groups cannot take 7 channels"),
        (lambda: Fire(squeezed=0, point_width=4, spatial_width=4), "squeezed must be at least 1, got squeezed=0"),
        (lambda: ConvClassifier(classes=1), "classes must be at least 2"),
        (lambda: RepVGG(width=8, kernel=1), "kernel must be at least 3, got kernel=1"),
        (lambda: MobileViT(width=10, heads=4), "width must be a multiple of heads, got width=10 and heads=4"),
        (lambda: MobileViT(width=8).build((8, 7, 8)), "sides must be multiples of patch=2, got 7 x 8"),
        (lambda: PatchEmbedding(width=8).build((3, 8, 32)), "an image of 8 x 32 has no patch of 16 pixels"),
        (lambda: Transformer(hidden=8).build((8, 4, 4)), r"takes \(tokens, width\), got \(8, 4, 4\)"),
        (
            lambda: Transformer(hidden=8, heads=3).build((4, 8)),
            "width must be a multiple of heads, got width=8 and heads=3",
        ),
        (lambda: TokenClassifier(classes=2).build((8, 4, 4)), r"takes \(tokens, width\), got \(8, 4, 4\)"),
        (lambda: TokenClassifier(classes=2, pool="max"), "pool must be 'class' or 'mean', got pool='max'"),
    ],
)
def test_what_a_block_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
