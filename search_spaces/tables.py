"""Costs of many architectures of a chain space at once: sums and maxima over positions, as array look-ups.

A chain's cost is exact when it adds up (or takes the maximum) over blocks, and a block's cost depends only on the
options its position reads and the shape that arrives. So each position gets a table over (arriving shape, options),
filled with the scalar path's own figures the first time a combination is asked for, and never twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces.architecture import Shape
from search_spaces.lowering import lower_block
from search_spaces.space import ChainSpace, Position, Rows
from search_spaces.workload import Segment


@dataclass(frozen=True, slots=True)
class Price:
    """What one segment costs, and whether a network costs the sum or the maximum of its segments."""

    of: Callable[[Segment], float]
    over: Literal["sum", "max"] = "sum"


class CostTables:
    """Prices of rows of a chain space.

    The first look-up of a combination lowers its blocks (about 2 ms each); later ones cost about 20 ns.

    Args:
        space: The space of the rows.
        prices: By name; integers up to 2**53 stay exact.
    """

    def __init__(self, space: ChainSpace, prices: Mapping[str, Price]) -> None:
        chain = space.chain
        columns = {choice.name: number for number, choice in enumerate(space.choices)}
        self.names = tuple(prices)
        self._prices = tuple(prices.values())
        self._sums = [number for number, price in enumerate(self._prices) if price.over == "sum"]
        self._maxima = [number for number, price in enumerate(self._prices) if price.over == "max"]
        self._inputs = chain.inputs
        self._stages = [_Stage(position, columns, self._prices) for position in chain.positions]

    def __call__(self, rows: Rows) -> dict[str, npt.NDArray[np.float64]]:
        """Return for every price one value per row, shape `(n,)`."""
        found = np.empty((len(self.names), len(rows)))
        for start in range(0, len(rows), _BATCH):
            found[:, start : start + _BATCH] = self._batch(rows[start : start + _BATCH])
        return dict(zip(self.names, found, strict=True))

    def _batch(self, rows: Rows) -> npt.NDArray[np.float64]:
        totals = np.zeros((len(self._prices), len(rows)))
        first = [self._stages[0].state(shape) for shape in self._inputs]
        states = np.array(first)[rows[:, 0] if len(first) > 1 else np.zeros(len(rows), dtype=np.int64)]
        for number, stage in enumerate(self._stages):
            following = self._stages[number + 1] if number + 1 < len(self._stages) else None
            cells = stage.cells(rows, states, following)
            for price in self._sums:
                totals[price] += stage.costs[price][cells]
            for price in self._maxima:
                np.maximum(totals[price], stage.costs[price][cells], out=totals[price])
            states = stage.next[cells]
        return totals


_BATCH = 65536
"""Rows looked up together: their intermediate arrays stay in the second-level cache."""


class _Stage:
    """The table of one position: cell = state * combinations + combination."""

    def __init__(self, position: Position, columns: Mapping[str, int], prices: tuple[Price, ...]) -> None:
        self._position = position
        self._prices = prices
        self._columns = [columns[choice.name] for choice in position.choices]
        self._sizes = tuple(len(choice.options) for choice in position.choices)
        self._combinations = int(np.prod(self._sizes, dtype=np.int64)) if self._sizes else 1
        self._states: dict[Shape, int] = {}
        self._shapes: list[Shape] = []
        self.costs = [np.empty(0) for _ in prices]
        self.next = np.empty(0, dtype=np.int64)

    def state(self, shape: Shape) -> int:
        """Return the number of an arriving shape, making room for it when it is new."""
        if shape not in self._states:
            self._states[shape] = len(self._shapes)
            self._shapes.append(shape)
            self.costs = [np.append(cost, np.zeros(self._combinations)) for cost in self.costs]
            self.next = np.append(self.next, np.full(self._combinations, -1, dtype=np.int64))
        return self._states[shape]

    def cells(self, rows: Rows, states: npt.NDArray[np.int64], following: "_Stage | None") -> npt.NDArray[np.int64]:
        """Return the cell of every row, after filling those that are new."""
        cells = states * self._combinations
        factor = 1
        for column, size in zip(reversed(self._columns), reversed(self._sizes), strict=True):
            cells = cells + rows[:, column] * factor
            factor *= size
        missing = cells[self.next[cells] < 0]
        for cell in np.unique(missing):
            self._fill(int(cell), following)
        return cells

    def _fill(self, cell: int, following: "_Stage | None") -> None:
        state, combination = divmod(cell, self._combinations)
        numbers = np.unravel_index(combination, self._sizes) if self._sizes else ()
        chosen = {
            choice.name: choice.options[int(number)]
            for choice, number in zip(self._position.choices, numbers, strict=True)
        }
        shape = self._shapes[state]
        segments = []
        for block in self._position.made(shape, chosen):
            segments.append(lower_block(block, shape))
            shape = segments[-1].output.shape[1:]
        for price, cost in zip(self._prices, self.costs, strict=True):
            combine = sum if price.over == "sum" else max
            cost[cell] = combine([price.of(segment) for segment in segments] or [0.0])
        self.next[cell] = following.state(shape) if following else 0
