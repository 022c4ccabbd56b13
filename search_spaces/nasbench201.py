"""NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326): its 15,625 cells as a space."""

from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, NormActivation
from search_spaces.errors import SpaceError
from search_spaces.nasbench201_blocks import (
    EDGES,
    OPERATORS,
    NasBench201Cell,
    NasBench201Reduction,
    canonical_cell,
)
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, Values, check_values
from search_spaces.stages import fixed, square

CHOICES = tuple(Choice(f"edge{source}{target}", OPERATORS) for source, target in EDGES)


@SEARCH_SPACES.register("nasbench201")
@dataclass(frozen=True, slots=True, kw_only=True)
class NasBench201Space(ChainSpace):
    """Three stages of one cell, six operators of five kinds: 15,625 rows, 5,425 networks.

    Isomorphic cells are one network (`nasbench201_blocks.canonical_cell` says which these are), unless the space is
    literal. A row of numbers `ops` of the public tables is a row of this space.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, multiples of 4, a choice where there are several.
        width: Channels of the first stage; the two others have twice and four times as many.
        cells: In each stage.
        literal: Whether cells are executed operator for operator as in the benchmark's code, dead ones included, so
            that 15,625 networks differ: for latency models of the public tables.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    width: int = 16
    cells: int = 5
    literal: bool = False

    def __post_init__(self) -> None:
        if any(side % 4 for side in self.resolutions):
            raise SpaceError(f"resolutions must be multiples of 4, got {self.resolutions}")

    @property
    def chain(self) -> Chain:
        """The stem, three stages of cells with reductions between, and the head."""
        cells = Position(CHOICES, self._cells)
        return Chain(
            square(self.channels, self.resolutions),
            (
                fixed(Conv(width=self.width, activation="none")),
                cells,
                fixed(NasBench201Reduction(width=2 * self.width)),
                cells,
                fixed(NasBench201Reduction(width=4 * self.width)),
                cells,
                fixed(NormActivation(), Classifier(classes=self.classes)),
            ),
        )

    def decode(self, values: Values) -> Architecture:
        """Return the network, as every chain space does, but without lowering: no block depends on its input."""
        check_values(self.choices, values)
        shape = next(
            (shape for shape in self.chain.inputs if shape[1] == values.get("resolution")), self.chain.inputs[0]
        )
        return Architecture(shape, tuple(position.blocks(shape, values) for position in self.chain.positions))

    def _cells(self, _shape: Shape, values: Values) -> tuple[Block, ...]:
        operators = tuple(str(values[choice.name]) for choice in CHOICES)
        if not self.literal:
            operators = canonical_cell(operators)
        return (NasBench201Cell(operators=operators, literal=self.literal),) * self.cells
