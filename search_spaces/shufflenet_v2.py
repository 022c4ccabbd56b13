"""ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164, table 5): the network and its space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, MaxPool
from search_spaces.rounding import multiple_of_8
from search_spaces.shuffle_blocks import ShuffleUnit
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, scaled, square, squeezed

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


STAGES = ((116, (2, 3, 4)), (232, (2, 4, 8)), (464, (2, 3, 4)))
"""Width at x1.0 and depths of the space's stages."""


@SEARCH_SPACES.register("shufflenet_v2")
@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleNetV2Space(ChainSpace):
    """ShuffleNetV2's three stages with free width, depth, kernel and squeeze-excitation.

    The stem's max pooling is there for inputs from 64 pixels on.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on the width of a stage at x1.0.
        kernels: Kernels of depthwise convolutions.
        se: Whether squeeze-excitation is allowed, as options.
        head_widths: Channels before the classifier.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    se: tuple[bool, ...] = (False, True)
    head_widths: tuple[int, ...] = (128, 256, 512, 1024)

    @property
    def chain(self) -> Chain:
        """The stem, three stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        pool = (MaxPool(),) if min(self.resolutions) >= 64 else ()
        stem, *strides = default_strides(min(self.resolutions) // (2 if pool else 1), len(STAGES))
        positions = [fixed(Conv(width=24, stride=stem, activation="relu"), *pool)]
        for number, ((base, depths), stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            options = {
                "width": scaled(base, self.widths), "depth": depths, "kernel": self.kernels, "se": self.se
            }  # fmt: skip
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(inputs, tuple(positions))

    def _head(self, _shape: Shape, values: Values) -> tuple[Block, ...]:
        wide = Conv(width=int(values["head.width"]), kernel=1, activation="relu")
        return (wide, Classifier(classes=self.classes))


def _block(_shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    width = int(chosen["width"])
    return ShuffleUnit(
        width=width,
        hidden=width // 2,
        kernel=int(chosen["kernel"]),
        stride=stride,
        se=squeezed(width // 2) if chosen["se"] else 0,
    )
