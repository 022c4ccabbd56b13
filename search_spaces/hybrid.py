"""Hybrid networks: convolutions first, and attention where maps are small."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Block, Shape
from search_spaces.attention_blocks import LinearAttention, MobileViT
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower_block
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, square, squeezed

Kind = Literal["convolution", "linear_attention", "mobilevit"]


@SEARCH_SPACES.register("hybrid")
@dataclass(frozen=True, slots=True, kw_only=True)
class HybridSpace(ChainSpace):
    """Stages of inverted residuals, the last of which may use EfficientViT's or MobileViT's attention.

    A stage with attention begins with an inverted residual that changes size and width, as in both papers. Its depth
    then counts pairs of a linear attention and an inverted residual, or transformer layers within one MobileViT block.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Options of output channels, stage by stage; multiples of 8.
        attention_stages: How many of the last stages may use attention.
        kinds: What those stages may be made of.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels over a block's input channels.
        depths: Numbers of blocks in a stage.
        se: Whether squeeze-excitation is allowed in convolutional stages, as options.
        head_widths: Channels before the classifier.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[tuple[int, ...], ...] = ((16, 24), (24, 32), (32, 48, 64), (48, 64, 96), (64, 96, 128))
    attention_stages: int = 2
    kinds: tuple[Kind, ...] = ("convolution", "linear_attention", "mobilevit")
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    depths: tuple[int, ...] = (1, 2, 3)
    se: tuple[bool, ...] = (False, True)
    head_widths: tuple[int, ...] = (128, 256, 512)

    def __post_init__(self) -> None:
        if any(width % 8 for widths in self.widths for width in widths):
            raise SpaceError(f"widths must be multiples of 8, which heads need, got {self.widths}")
        if not 0 <= self.attention_stages <= len(self.widths):
            raise SpaceError(f"attention_stages must lie within 0 to {len(self.widths)}, got {self.attention_stages}")

    @property
    def chain(self) -> Chain:
        """The stem, the stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(self.widths))
        positions = [fixed(Conv(width=16, stride=stem, activation="hard_swish"))]
        for number, (widths, stride) in enumerate(zip(self.widths, strides, strict=True), start=1):
            options = {
                "width": widths,
                "depth": self.depths,
                "kernel": self.kernels,
                "expansion": self.expansions,
                "se": self.se,
            }
            if number <= len(self.widths) - self.attention_stages:
                positions.append(repeated(f"stage{number}", options, stride=stride, block=_convolution))
            else:
                positions.append(self._late_stage(f"stage{number}", options, stride))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(inputs, tuple(positions))

    def _late_stage(self, name: str, options: Mapping[str, tuple[Option, ...]], stride: int) -> Position:
        plain = repeated(name, options, stride=stride, block=_convolution)
        kind = Choice(f"{name}.kind", self.kinds)

        def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
            if values[kind.name] == "convolution":
                return plain.blocks(shape, values)
            chosen = {key: values[f"{name}.{key}"] for key in options} | {"se": False}
            first = _convolution(shape, stride, chosen)
            shape = lower_block(first, shape).output.shape[1:]
            units = int(chosen["depth"])
            if values[kind.name] == "mobilevit":
                return (first, _mobilevit(shape, units))
            width = shape[0]
            attention = LinearAttention(heads=width // 8, head_width=8, scales=(int(chosen["kernel"]),))
            return (first, *(attention, _convolution(shape, 1, chosen)) * units)

        return Position((kind, *plain.choices), blocks)

    def _head(self, _shape: Shape, values: Values) -> tuple[Block, ...]:
        wide = Conv(width=int(values["head.width"]), kernel=1, activation="hard_swish")
        return (wide, Classifier(classes=self.classes))


def _convolution(shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    hidden = shape[0] * int(chosen["expansion"])
    return InvertedResidual(
        width=int(chosen["width"]),
        hidden=hidden,
        kernel=int(chosen["kernel"]),
        stride=stride,
        se=squeezed(hidden) if chosen["se"] else 0,
        activation="hard_swish",
    )


def _mobilevit(shape: Shape, depth: int) -> Block:
    width, height, side = shape
    patch = 2 if height % 2 == side % 2 == 0 else 1
    return MobileViT(width=width, depth=depth, hidden=2 * width, heads=4, patch=patch, activation="hard_swish")
