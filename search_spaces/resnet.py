"""ResNet (He et al. 2016, arXiv:1512.03385, table 1) and RegNet (Radosavovic et al. 2020, arXiv:2003.13678)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, MaxPool
from search_spaces.resnet_blocks import ResidualBasic, ResidualBottleneck
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Option
from search_spaces.stages import default_strides, fixed, repeated, scaled, square, squeezed

WIDTHS = (64, 128, 256, 512)


def resnet18(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return ResNet-18; at width 1 and 1000 classes it has 11,689,512 parameters and 1,814,073,344 MACs.

    Args:
        width: Factor on all channel counts.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    stem = Conv(width=multiple_of_8(64 * width), kernel=7, stride=stem_stride, activation="relu")
    stages: list[tuple[Block, ...]] = [(stem, MaxPool())]
    for number, base in enumerate(WIDTHS):
        out = multiple_of_8(base * width)
        blocks = (
            ResidualBasic(width=out, hidden=out, stride=2 if number and not position else 1) for position in range(2)
        )
        stages.append(tuple(blocks))
    stages.append((Classifier(classes=classes),))
    return Architecture(input_shape, tuple(stages))


def resnet50(*, classes: int = 1000, input_shape: tuple[int, int, int] = (3, 224, 224)) -> Architecture:
    """Return ResNet-50 with the stride in the spatial convolution; with 1000 classes 25,557,032 parameters.

    Args:
        classes: Number of logits.
        input_shape: Channels, height, width.
    """
    stages: list[tuple[Block, ...]] = [(Conv(width=64, kernel=7, stride=2, activation="relu"), MaxPool())]
    for number, (hidden, depth) in enumerate(zip(WIDTHS, (3, 4, 6, 3), strict=True)):
        blocks = (
            ResidualBottleneck(width=4 * hidden, hidden=hidden, stride=2 if number and not position else 1)
            for position in range(depth)
        )
        stages.append(tuple(blocks))
    stages.append((Classifier(classes=classes),))
    return Architecture(input_shape, tuple(stages))


REGNET_Y_400MF = ((48, 1), (104, 3), (208, 6), (440, 6))
"""Width and depth of each stage; groups are 8 channels wide."""


def regnet_y_400mf(
    *, classes: int = 1000, input_shape: tuple[int, int, int] = (3, 224, 224), stem_stride: int = 2
) -> Architecture:
    """Return RegNetY-400MF; with 1000 classes it has 4,344,144 parameters.

    Args:
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    arriving = 32
    stages: list[tuple[Block, ...]] = [(Conv(width=arriving, stride=stem_stride, activation="relu"),)]
    for out, depth in REGNET_Y_400MF:
        blocks: list[Block] = []
        for position in range(depth):
            blocks.append(
                ResidualBottleneck(
                    width=out,
                    hidden=out,
                    stride=1 if position else 2,
                    groups=out // 8,
                    se=round(arriving / 4),
                )
            )
            arriving = out
        stages.append(tuple(blocks))
    stages.append((Classifier(classes=classes),))
    return Architecture(input_shape, tuple(stages))


Form = Literal["basic", "bottleneck", "grouped"]


@SEARCH_SPACES.register("resnet")
@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSpace(ChainSpace):
    """ResNet's four stages, each of basic, bottleneck or grouped blocks, with free width, depth and kernel.

    A grouped block is RegNet's: as many hidden as output channels, in groups of 8. A bottleneck has a quarter of its
    output channels between. The stem's max pooling is there for inputs from 64 pixels on.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        forms: Kinds of block a stage may be made of.
        widths: Factors on 64, 128, 256 and 512 output channels.
        depths: Numbers of blocks in a stage.
        kernels: Of the spatial convolutions.
        se: Whether squeeze-excitation is allowed, as options; ignored by basic blocks, which have none.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    forms: tuple[Form, ...] = ("basic", "bottleneck", "grouped")
    widths: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75, 1.0)
    depths: tuple[int, ...] = (1, 2, 3)
    kernels: tuple[int, ...] = (3, 5)
    se: tuple[bool, ...] = (False, True)

    @property
    def chain(self) -> Chain:
        """The stem, four stages, and the classifier."""
        inputs = square(self.channels, self.resolutions)
        pool = (MaxPool(),) if min(self.resolutions) >= 64 else ()
        stem, *strides = default_strides(min(self.resolutions) // (2 if pool else 1), len(WIDTHS))
        positions = [fixed(Conv(width=scaled(64, self.widths)[-1] // 2, stride=stem, activation="relu"), *pool)]
        for number, (base, stride) in enumerate(zip(WIDTHS, strides, strict=True), start=1):
            options = {
                "form": self.forms,
                "width": scaled(base, self.widths),
                "depth": self.depths,
                "kernel": self.kernels,
                "se": self.se,
            }
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block))
        positions.append(fixed(Classifier(classes=self.classes)))
        return Chain(inputs, tuple(positions))


def _block(_shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    width, kernel, form = int(chosen["width"]), int(chosen["kernel"]), chosen["form"]
    if form == "basic":
        return ResidualBasic(width=width, hidden=width, kernel=kernel, stride=stride)
    hidden = width if form == "grouped" else multiple_of_8(width / 4)
    return ResidualBottleneck(
        width=width,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        groups=hidden // 8 if form == "grouped" else 1,
        se=squeezed(hidden) if chosen["se"] else 0,
    )
