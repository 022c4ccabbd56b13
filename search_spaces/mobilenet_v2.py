"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2): the network and its space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, scaled, square, up_to

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


@SEARCH_SPACES.register("mobilenet_v2")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetV2Space(ChainSpace):
    """MobileNetV2's seven stages with free width, depth, kernel and expansion; the first stage has no expansion.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on the published width of a stage.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels over a block's input channels, from the second stage on.
        head_widths: Channels before the classifier.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.35, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    head_widths: tuple[int, ...] = (128, 320, 640, 1280)

    @property
    def chain(self) -> Chain:
        """The stem, seven stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(STAGES))
        positions = [fixed(Conv(width=scaled(32, self.widths)[-1], stride=stem))]
        for number, ((expansion, base, depth, _), stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            options = {
                "width": scaled(base, self.widths),
                "depth": up_to(depth),
                "kernel": self.kernels,
                "expansion": self.expansions if expansion > 1 else (1,),
            }
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(inputs, tuple(positions))

    def _head(self, _shape: Shape, values: Values) -> tuple[Block, ...]:
        return (Conv(width=int(values["head.width"]), kernel=1), Classifier(classes=self.classes))


def _block(shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    expansion = int(chosen["expansion"])
    return InvertedResidual(
        width=int(chosen["width"]),
        hidden=shape[0] * expansion,
        kernel=int(chosen["kernel"]),
        stride=stride,
        expand=expansion > 1,
    )
