"""The default space: every stage is made of MobileNetV2 inverted residuals or of ShuffleNetV2 units."""

from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.errors import SpaceError
from search_spaces.shuffle_blocks import ShuffleUnit
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, Values
from search_spaces.stages import default_strides, squeezed

Family = Literal["mobilenet", "shufflenet"]


@SEARCH_SPACES.register("mixed")
@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSpace(ChainSpace):
    """Stages of MobileNet- or ShuffleNet-style blocks between a convolutional stem and a pointwise head.

    Every stage chooses its block family, kernel, expansion, width, depth, squeeze-excitation and activation; the
    head chooses its width. ShuffleNet units have no expansion, so that choice is ignored there.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        families: Block families a stage may be made of.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels of an inverted residual over its input channels.
        widths: Options of output channels, stage by stage; even numbers.
        depths: Numbers of blocks in a stage.
        se: Whether squeeze-excitation is allowed, as options.
        activations: Activations within blocks.
        strides: Of the stem and of each stage; empty for strides that leave the last stage 4 to 7 pixels a side.
        stem_width: Output channels of the stem.
        head_widths: Channels before the classifier.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    families: tuple[Family, ...] = ("mobilenet", "shufflenet")
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    widths: tuple[tuple[int, ...], ...] = (
        (8, 16, 24), (16, 24, 32), (24, 32, 48, 64), (32, 48, 64, 96), (48, 64, 96, 128),
    )  # fmt: skip
    depths: tuple[int, ...] = (1, 2, 3, 4)
    se: tuple[bool, ...] = (False, True)
    activations: tuple[str, ...] = ("relu", "hard_swish")
    strides: tuple[int, ...] = ()
    stem_width: int = 16
    head_widths: tuple[int, ...] = (64, 128, 256)

    def __post_init__(self) -> None:
        if not self.resolutions or min(self.resolutions) < 8:
            raise SpaceError(f"resolutions must be at least 8 pixels, got {self.resolutions}")
        if self.strides and len(self.strides) != len(self.widths) + 1:
            raise SpaceError(
                f"strides needs one for the stem and one for each of {len(self.widths)} stages, got {self.strides}"
            )

    @property
    def chain(self) -> Chain:
        """The stem, one position for every stage, and the head."""
        stem_stride, *strides = self.strides or default_strides(min(self.resolutions), len(self.widths))
        stem = Conv(
            width=self.stem_width,
            stride=stem_stride,
            activation="hard_swish" if self.activations == ("hard_swish",) else "relu",
        )
        positions = [Position((), lambda _shape, _values: (stem,))]
        for number, (widths, stride) in enumerate(zip(self.widths, strides, strict=True), start=1):
            positions.append(self._stage(f"stage{number}", widths, stride))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(tuple((self.channels, side, side) for side in self.resolutions), tuple(positions))

    def _stage(self, name: str, widths: tuple[int, ...], stride: int) -> Position:
        choices = (
            Choice(f"{name}.family", self.families),
            Choice(f"{name}.kernel", self.kernels),
            Choice(f"{name}.expansion", self.expansions),
            Choice(f"{name}.width", widths),
            Choice(f"{name}.depth", self.depths),
            Choice(f"{name}.se", self.se),
            Choice(f"{name}.activation", self.activations),
        )

        def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
            family, kernel, expansion, width, depth, se, activation = (values[choice.name] for choice in choices)
            made: list[Block] = []
            arriving = shape[0]
            for number in range(int(depth)):
                step = stride if number == 0 else 1
                if family == "mobilenet":
                    hidden = arriving * int(expansion)
                    made.append(
                        InvertedResidual(
                            width=int(width),
                            hidden=hidden,
                            kernel=int(kernel),
                            stride=step,
                            se=squeezed(hidden) if se else 0,
                            activation=str(activation),
                        )
                    )
                else:
                    half = int(width) // 2
                    made.append(
                        ShuffleUnit(
                            width=int(width),
                            hidden=half,
                            kernel=int(kernel),
                            stride=step,
                            se=squeezed(half) if se else 0,
                            activation=str(activation),
                        )
                    )
                arriving = int(width)
            return tuple(made)

        return Position(choices, blocks)

    def _head(self, _shape: Shape, values: Values) -> tuple[Block, ...]:
        wide = Conv(width=int(values["head.width"]), kernel=1, activation="relu")
        return (wide, Classifier(classes=self.classes))
