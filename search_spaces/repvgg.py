"""RepVGG (Ding et al. 2021, arXiv:2101.03697) and MobileOne (Vasu et al. 2023, arXiv:2206.04040), as deployed."""

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier
from search_spaces.reparametrized_blocks import MobileOne, RepVGG


def repvgg_a0(
    *, classes: int = 1000, input_shape: tuple[int, int, int] = (3, 224, 224), stem_stride: int = 2
) -> Architecture:
    """Return RepVGG-A0 in its deployed form; with 1000 classes that has 8,309,384 parameters.

    `reparametrize.training_form` gives what is trained.

    Args:
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    stages: list[tuple[Block, ...]] = [(RepVGG(width=48, stride=stem_stride),)]
    for width, depth in ((48, 2), (96, 4), (192, 14), (1280, 1)):
        stages.append(tuple(RepVGG(width=width, stride=1 if number else 2) for number in range(depth)))
    return Architecture(input_shape, (*stages, (Classifier(classes=classes),)))


def mobileone_s0(
    *, classes: int = 1000, input_shape: tuple[int, int, int] = (3, 224, 224), stem_stride: int = 2
) -> Architecture:
    """Return MobileOne-S0 in its deployed form; with 1000 classes that has 2,078,504 parameters.

    The stem is one branched convolution, which is `RepVGG`'s block without the input as a branch.

    Args:
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    stages: list[tuple[Block, ...]] = [(RepVGG(width=48, stride=stem_stride),)]
    for width, depth in ((48, 2), (128, 8), (256, 10), (1024, 1)):
        blocks = (MobileOne(width=width, stride=1 if number else 2, branches=4) for number in range(depth))
        stages.append(tuple(blocks))
    return Architecture(input_shape, (*stages, (Classifier(classes=classes),)))
