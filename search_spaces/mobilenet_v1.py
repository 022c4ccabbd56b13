"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861, table 1): the network and its space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv
from search_spaces.mobilenet_blocks import DepthwiseSeparable
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Option
from search_spaces.stages import default_strides, fixed, repeated, scaled, square, up_to

STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""Width, depth, stride of each stage."""


def mobilenet_v1(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return MobileNetV1; at width 1 and 1000 classes it has 4,231,976 parameters and 568,740,352 MACs.

    Args:
        width: Factor on all channel counts.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    stages: list[tuple[Block, ...]] = [(Conv(width=multiple_of_8(32 * width), stride=stem_stride, activation="relu"),)]
    for base, depth, stride in STAGES:
        blocks = (
            DepthwiseSeparable(width=multiple_of_8(base * width), stride=1 if number else stride)
            for number in range(depth)
        )
        stages.append(tuple(blocks))
    stages.append((Classifier(classes=classes, dropout=0.2),))
    return Architecture(input_shape, tuple(stages))


@SEARCH_SPACES.register("mobilenet_v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetV1Space(ChainSpace):
    """MobileNetV1's stages with free width, depth and kernel.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on the published width of a stage.
        kernels: Kernels of depthwise convolutions.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)

    @property
    def chain(self) -> Chain:
        """The stem, five stages, and the classifier."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(STAGES))

        def block(_shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
            return DepthwiseSeparable(width=int(chosen["width"]), kernel=int(chosen["kernel"]), stride=stride)

        stages = (
            repeated(
                f"stage{number}",
                {"width": scaled(base, self.widths), "depth": up_to(depth), "kernel": self.kernels},
                stride=stride,
                block=block,
            )
            for number, ((base, depth, _), stride) in enumerate(zip(STAGES, strides, strict=True), start=1)
        )
        first = Conv(width=scaled(32, self.widths)[-1] // 2, stride=stem, activation="relu")
        return Chain(inputs, (fixed(first), *stages, fixed(Classifier(classes=self.classes))))
