"""ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164, table 5)."""

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier, Conv, MaxPool
from search_spaces.rounding import multiple_of_8
from search_spaces.shuffle_blocks import ShuffleUnit

WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Channels of the three stages and of the last convolution, for the published widths."""


def shufflenet_v2(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return ShuffleNetV2; x1.0 with 1000 classes has 2,278,604 parameters.

    Args:
        width: One of the published 0.5, 1.0, 1.5, 2.0, or any other factor, which scales x1.0 to multiples of 8.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    first, second, third, last = WIDTHS.get(width) or (
        multiple_of_8(116 * width), multiple_of_8(232 * width), multiple_of_8(464 * width), 1024
    )  # fmt: skip
    stages: list[tuple[Block, ...]] = [(Conv(width=24, stride=stem_stride, activation="relu"), MaxPool())]
    for out, depth in ((first, 4), (second, 8), (third, 4)):
        units = (ShuffleUnit(width=out, hidden=out // 2, stride=1 if number else 2) for number in range(depth))
        stages.append(tuple(units))
    stages.append((Conv(width=last, kernel=1, activation="relu"), Classifier(classes=classes)))
    return Architecture(input_shape, tuple(stages))
