"""FBNet's space (Wu et al. 2019, arXiv:1812.03443, table 1), as the public latency tables have it.

The layer table, for 32 and for 224 pixels, is that of HW-NAS-Bench (Li et al. 2021, arXiv:2103.10584).
"""

from dataclasses import dataclass

from search_spaces.architecture import Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.errors import SpaceError
from search_spaces.shuffle_blocks import GroupedInvertedResidual
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, Values
from search_spaces.stages import fixed, square

OPERATORS: dict[str, tuple[int, int, int]] = {
    "k3_e1": (3, 1, 1), "k3_e1_g2": (3, 1, 2), "k3_e3": (3, 3, 1), "k3_e6": (3, 6, 1),
    "k5_e1": (5, 1, 1), "k5_e1_g2": (5, 1, 2), "k5_e3": (5, 3, 1), "k5_e6": (5, 6, 1),
}  # fmt: skip
"""Kernel, expansion and groups of every operator but "skip"."""

NAMES: tuple[str, ...] = (*OPERATORS, "skip")
"""The operators in the order of the public tables, so that a table's row of numbers is a row of this space."""

STAGES = ((16, 1), (24, 4), (32, 4), (64, 4), (112, 4), (184, 4), (352, 1))
"""Width and number of layers of each stage; one operator is chosen for each of the 22 layers."""

SMALL_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)
LARGE_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
"""Of the stem and each stage, for 32 and for 224 pixels."""


@SEARCH_SPACES.register("fbnet")
@dataclass(frozen=True, slots=True, kw_only=True)
class FBNetSpace(ChainSpace):
    """22 layers, each one of nine operators, with fixed widths: 9^22 rows.

    A row of numbers `op_idx` of the public tables is a row of this space. Where a layer keeps the shape, "skip"
    leaves it out; elsewhere it is a strided pointwise convolution with batch normalization and ReLU, as in
    HW-NAS-Bench. With `classes=100` at 32 pixels, networks have the parameters that the tables state.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        strides: Of the stem and of each stage; empty for those published for 32 pixels where a resolution is under
            64, else those for 224.
        head_width: Channels before the classifier; 1504 for 32 pixels, 1984 for 224.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    strides: tuple[int, ...] = ()
    head_width: int = 1504

    def __post_init__(self) -> None:
        if self.strides and len(self.strides) != len(STAGES) + 1:
            raise SpaceError(f"strides needs one for the stem and one for each of 7 stages, got {self.strides}")

    @property
    def chain(self) -> Chain:
        """The stem, 22 layers, and the head."""
        default = SMALL_STRIDES if min(self.resolutions) < 64 else LARGE_STRIDES
        stem, *strides = self.strides or default
        positions = [fixed(Conv(width=16, stride=stem, activation="relu"))]
        for (width, layers), stride in zip(STAGES, strides, strict=True):
            for number in range(layers):
                positions.append(_layer(f"layer{len(positions)}", width, 1 if number else stride))
        head = (Conv(width=self.head_width, kernel=1, activation="relu"), Classifier(classes=self.classes))
        return Chain(square(self.channels, self.resolutions), (*positions, fixed(*head)))


def _layer(name: str, width: int, stride: int) -> Position:
    def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
        operator = str(values[name])
        if operator == "skip":
            keeps = stride == 1 and shape[0] == width
            return () if keeps else (Conv(width=width, kernel=1, stride=stride, activation="relu"),)
        kernel, expansion, groups = OPERATORS[operator]
        hidden = shape[0] * expansion
        if groups > 1:
            return (GroupedInvertedResidual(width=width, hidden=hidden, groups=groups, kernel=kernel, stride=stride),)
        return (InvertedResidual(width=width, hidden=hidden, kernel=kernel, stride=stride, activation="relu"),)

    return Position((Choice(name, NAMES),), blocks)
