"""MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, tables 1 and 2)."""

from typing import Literal

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.rounding import multiple_of_8

Row = tuple[int, int, int, bool, str, int]

SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
"""Kernel, hidden, width, squeeze-excitation, activation, stride of each block."""

EPS = 1e-3
"""Of batch normalization in the reference implementations."""


def mobilenet_v3(
    variant: Literal["small", "large"] = "small",
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return MobileNetV3; at width 1 and 1000 classes 2,542,856 (small) or 5,483,032 (large) parameters.

    Args:
        variant: Which of both networks of the paper.
        width: Factor on all channel counts.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    rows = SMALL if variant == "small" else LARGE
    channels = multiple_of_8(16 * width)
    stages: list[tuple[Block, ...]] = [
        (Conv(width=channels, stride=stem_stride, activation="hard_swish", eps=EPS),)
    ]
    stage: list[Block] = []
    for kernel, base_hidden, base_width, se, activation, stride in rows:
        if stride == 2 and stage:
            stages.append(tuple(stage))
            stage = []
        hidden, out = multiple_of_8(base_hidden * width), multiple_of_8(base_width * width)
        expand = base_hidden != 16
        stage.append(
            InvertedResidual(
                width=out,
                hidden=hidden if expand else channels,
                kernel=kernel,
                stride=stride,
                expand=expand,
                se=multiple_of_8(hidden / 4) if se else 0,
                activation=activation,
                eps=EPS,
            )
        )
        channels = out
    wide = 6 * channels
    last = multiple_of_8((1024 if variant == "small" else 1280) * width)
    head = (
        Conv(width=wide, kernel=1, activation="hard_swish", eps=EPS),
        Classifier(classes=classes, hidden=last, dropout=0.2),
    )
    return Architecture(input_shape, (*stages, tuple(stage), head))
