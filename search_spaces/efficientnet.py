"""EfficientNet (Tan and Le 2019, arXiv:1905.11946), EfficientNet-lite, and a space of compound scaling."""

import math
from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.efficientnet_blocks import FusedMBConv, MBConv
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, Values
from search_spaces.stages import default_strides, square

STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
"""Expansion, width, depth, stride and kernel of each stage of B0 (table 1)."""

SCALES: dict[str, tuple[float, float, int]] = {
    "b0": (1.0, 1.0, 224), "b1": (1.0, 1.1, 240), "b2": (1.1, 1.2, 260), "b3": (1.2, 1.4, 300),
    "b4": (1.4, 1.8, 380), "b5": (1.6, 2.2, 456), "b6": (1.8, 2.6, 528), "b7": (2.0, 3.1, 600),
    "lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260), "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}  # fmt: skip
"""Factor on width, factor on depth and side of the input of the published networks."""

Form = Literal["mbconv", "lite", "fused"]


def efficientnet(
    variant: str = "b0", *, classes: int = 1000, input_shape: tuple[int, int, int] | None = None, stem_stride: int = 2
) -> Architecture:
    """Return EfficientNet; B0 with 1000 classes has 5,288,548 parameters.

    The lite networks have ReLU6 and no squeeze-excitation; the width of their stem and head and the depth of their
    first and last stage are not scaled.

    Args:
        variant: "b0" to "b7" or "lite0" to "lite4".
        classes: Number of logits.
        input_shape: Channels, height, width; None for the variant's own.
        stem_stride: 2 as published; 1 for images under about 64 pixels.

    Raises:
        ValueError: Another variant.
    """
    if variant not in SCALES:
        raise ValueError(f"variant must be one of {', '.join(SCALES)}, got {variant!r}")
    width, depth, side = SCALES[variant]
    lite = variant.startswith("lite")
    form: Form = "lite" if lite else "mbconv"
    activation: Literal["relu6", "silu"] = "relu6" if lite else "silu"
    channels = 32 if lite else multiple_of_8(32 * width)
    stages: list[tuple[Block, ...]] = [(Conv(width=channels, stride=stem_stride, activation=activation),)]
    for number, (expansion, base, repeats, stride, kernel) in enumerate(STAGES):
        count = repeats if lite and number in (0, len(STAGES) - 1) else math.ceil(repeats * depth)
        blocks: list[Block] = []
        for position in range(count):
            step = 1 if position else stride
            blocks.append(_block(form, channels, multiple_of_8(base * width), expansion, kernel, step))
            channels = multiple_of_8(base * width)
        stages.append(tuple(blocks))
    last = 1280 if lite else multiple_of_8(1280 * width)
    head = (Conv(width=last, kernel=1, activation=activation), Classifier(classes=classes, dropout=0.2))
    return Architecture(input_shape or (3, side, side), (*stages, head))


def _block(form: str, channels: int, width: int, expansion: int, kernel: int, stride: int) -> Block:
    hidden = channels * expansion
    if form == "lite":
        return InvertedResidual(width=width, hidden=hidden, kernel=kernel, stride=stride, expand=expansion > 1)
    if form == "fused":
        return FusedMBConv(width=width, hidden=hidden, kernel=kernel, stride=stride)
    return MBConv(
        width=width,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        expand=expansion > 1,
        se=max(1, channels // 4),
    )


@SEARCH_SPACES.register("efficientnet")
@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetSpace(ChainSpace):
    """EfficientNet under compound scaling: one factor on all widths, one on all depths, and the resolution.

    The early stages may be of fused blocks, as in EfficientNetV2, and all blocks may be lite. Published depths come
    from rounding up; below 1 the same rule is used. The choices are few on purpose: with default fields the space
    can be enumerated.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on all widths of B0.
        depths: Factors on all depths of B0.
        forms: What blocks are made of; "fused" concerns the first three stages, the others are then "mbconv".
        expansions: Hidden channels over a block's input channels, from the second stage on.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32, 40, 48, 64)
    widths: tuple[float, ...] = (0.25, 0.35, 0.5, 0.6, 0.75, 0.9, 1.0, 1.1)
    depths: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0, 1.2)
    forms: tuple[Form, ...] = ("mbconv", "lite", "fused")
    expansions: tuple[int, ...] = (3, 4, 6)

    @property
    def chain(self) -> Chain:
        """The stem, seven stages, and the head, which all read the same choices."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(STAGES))
        width, depth = Choice("width", self.widths), Choice("depth", self.depths)
        form, expansion = Choice("form", self.forms), Choice("expansion", self.expansions)

        def first(_shape: Shape, values: Values) -> tuple[Block, ...]:
            wide = multiple_of_8(32 * float(values["width"]))
            return (Conv(width=wide, stride=stem, activation=_activation(values)),)

        def head(_shape: Shape, values: Values) -> tuple[Block, ...]:
            wide = multiple_of_8(1280 * float(values["width"]))
            return (Conv(width=wide, kernel=1, activation=_activation(values)), Classifier(classes=self.classes))

        def stage(number: int, stride: int) -> Position:
            return Position(
                (width, depth, form, expansion), lambda shape, values: _stage(shape, values, number, stride)
            )

        stages = (stage(number, stride) for number, stride in enumerate(strides))
        return Chain(inputs, (Position((width, form), first), *stages, Position((width, form), head)))


def _stage(shape: Shape, values: Values, number: int, stride: int) -> tuple[Block, ...]:
    expansion, base, repeats, _, kernel = STAGES[number]
    if expansion > 1:
        expansion = int(values["expansion"])
    width = multiple_of_8(base * float(values["width"]))
    form = "mbconv" if values["form"] == "fused" and number > 2 else str(values["form"])
    channels = shape[0]
    made: list[Block] = []
    for position in range(math.ceil(repeats * float(values["depth"]))):
        made.append(_block(form, channels, width, expansion, kernel, 1 if position else stride))
        channels = width
    return tuple(made)


def _activation(values: Values) -> Literal["relu6", "silu"]:
    return "relu6" if values["form"] == "lite" else "silu"
