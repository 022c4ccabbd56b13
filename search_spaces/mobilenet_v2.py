"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2)."""

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.rounding import multiple_of_8

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, width, depth, stride of each stage."""


def mobilenet_v2(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return MobileNetV2; at width 1 and 1000 classes it has 3,504,872 parameters and 300,774,272 MACs.

    Args:
        width: Factor on all channel counts; as in the paper the last layer does not shrink below 1280.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    channels = multiple_of_8(32 * width)
    stages: list[tuple[Block, ...]] = [(Conv(width=channels, stride=stem_stride),)]
    for expansion, base, depth, stride in STAGES:
        out = multiple_of_8(base * width)
        blocks = []
        for number in range(depth):
            blocks.append(
                InvertedResidual(
                    width=out,
                    hidden=channels * expansion,
                    stride=stride if number == 0 else 1,
                    expand=expansion > 1,
                )
            )
            channels = out
        stages.append(tuple(blocks))
    last = multiple_of_8(1280 * max(1.0, width))
    stages.append((Conv(width=last, kernel=1), Classifier(classes=classes, dropout=0.2)))
    return Architecture(input_shape, tuple(stages))
