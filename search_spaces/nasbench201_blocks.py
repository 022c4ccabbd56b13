"""NAS-Bench-201's cell and reduction block (Dong and Yang 2020, arXiv:2001.00326), and which cells are one network.

A cell has four nodes; node 0 is its input, node 3 its output, and each node is the sum of one operator on every
node before it. A cell is written as six operator names, for the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import require, require_conv_fields

OPERATORS: tuple[str, ...] = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The benchmark's names, in its order."""

EDGES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target node of each of the six operators."""

Cell = tuple[str, ...]
Operation = tuple[str, tuple[int, ...]]
"""An operator and the numbers of the values it sums up first: 0 is the cell's input, n the n-th operation's output."""
Form = tuple[tuple[Operation, ...], tuple[int, ...]]
"""Operations in order, and the numbers of the values that make the cell's output."""


@BLOCKS.register("nasbench201_cell")
@dataclass(frozen=True, slots=True, kw_only=True)
class NasBench201Cell:
    """A cell of the benchmark; width and size stay.

    "none" contributes nothing and "skip_connect" its source; convolutions are ReLU, convolution, batch
    normalization; pooling leaves padding out of its mean. Operators that cannot reach the output, or whose input is
    always zero, are not built, unless the cell is literal.

    Attributes:
        operators: For the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.
        literal: Whether every operator is executed as in the benchmark's code, where "none" multiplies by zero:
            for costs of exactly the networks that the public tables timed.
    """

    operators: tuple[str, ...]
    literal: bool = False

    def __post_init__(self) -> None:
        require(
            len(self.operators) == len(EDGES) and set(self.operators) <= set(OPERATORS),
            f"a cell is {len(EDGES)} of {', '.join(OPERATORS)}, got {self.operators}",
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the cell."""
        operators = self.operators if self.literal else without_dead_edges(self.operators)
        return _Cell(input_shape[0], operators, literal=self.literal)


class _Cell(nn.Module):
    def __init__(self, channels: int, operators: Cell, *, literal: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operator(name, channels, literal=literal) for name in operators)
        self.used = [literal or name != "none" for name in operators]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nodes: dict[int, torch.Tensor] = {0: x}
        for (source, target), edge, used in zip(EDGES, self.edges, self.used, strict=True):
            if used:
                made = edge(nodes[source])
                nodes[target] = nodes[target] + made if target in nodes else made
        return nodes[3] if 3 in nodes else x * 0.0


class _Zero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.0


def _operator(name: str, channels: int, *, literal: bool) -> nn.Module:
    if name == "none":
        return _Zero() if literal else nn.Identity()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return _ActivationConvNorm(channels, channels, 1 if name == "nor_conv_1x1" else 3)


class _ActivationConvNorm(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


@BLOCKS.register("nasbench201_reduction")
@dataclass(frozen=True, slots=True, kw_only=True)
class NasBench201Reduction:
    """The benchmark's residual block between stages of cells: half the size, `width` channels.

    The shortcut is average pooling by 2 and a pointwise convolution without normalization.
    """

    width: int

    def __post_init__(self) -> None:
        require_conv_fields(kernel=1, stride=1, width=self.width)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; raises ValueError for odd sides, whose shortcut would be smaller."""
        channels, height, width = input_shape
        if height % 2 or width % 2:
            raise ValueError(f"the sides must be even, got {height} x {width}")
        return _Reduction(channels, self.width)


class _Reduction(nn.Module):
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _ActivationConvNorm(in_channels, width, 3, stride=2), _ActivationConvNorm(width, width, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, width, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.shortcut(x) + self.layers(x)
        return y


def without_dead_edges(operators: Sequence[str]) -> Cell:
    """Return the cell with "none" for every operator that cannot reach the output or gets nothing but zeros."""
    kept = list(operators)
    fed = {0}
    for number, (source, target) in enumerate(EDGES):
        if source not in fed:
            kept[number] = "none"
        elif kept[number] != "none":
            fed.add(target)
    needed = {3}
    for number, (source, target) in reversed(list(enumerate(EDGES))):
        if target not in needed:
            kept[number] = "none"
        elif kept[number] != "none":
            needed.add(source)
    return tuple(kept)


def canonical_cell(operators: Sequence[str]) -> Cell:
    """Return the one cell that stands for all cells with the same computation graph.

    Merged are cells that become equal after these steps, and no others:

    1. operators that cannot reach the output are dropped;
    2. operators whose input is always zero are dropped. For a convolution that drops the learned constant its batch
       normalization would make of zeros, as the benchmark's own rule does;
    3. a skip is its source itself, so a node is a multiset of operator outputs (one output may count twice);
    4. the order of operators and of terms in a sum does not matter.

    Two operators of one kind on one input stay two: they have weights of their own and both cost time. In that the
    result differs from the benchmark's `graph_id`, which compares strings in which such pairs look like one output
    used twice, and which keeps some sums apart for the order of their terms or for zeros in them.
    """
    return _representatives()[_form(tuple(operators))]


@functools.cache
def _representatives() -> dict[Form, Cell]:
    """For every computation graph its first cell, in the order of `OPERATORS`; takes under a second, once."""
    found: dict[Form, Cell] = {}
    for operators in itertools.product(OPERATORS, repeat=len(EDGES)):
        if without_dead_edges(operators) == operators:
            found.setdefault(_form(operators), operators)
    return found


@functools.cache
def _form(operators: Cell) -> Form:
    operations, output = _operations(operators)
    return min(_renumbered(operations, output, order) for order in _orders(operations))


def _operations(operators: Cell) -> tuple[list[Operation], tuple[int, ...]]:
    """Return live operations in the order of edges, with skips dissolved, and the terms of the output."""
    nodes: dict[int, tuple[int, ...]] = {0: (0,), 1: (), 2: (), 3: ()}
    operations: list[Operation] = []
    for (source, target), name in zip(EDGES, without_dead_edges(operators), strict=True):
        if name == "skip_connect":
            nodes[target] += nodes[source]
        elif name != "none":
            operations.append((name, nodes[source]))
            nodes[target] += (len(operations),)
    return operations, nodes[3]


def _orders(operations: Sequence[Operation]) -> list[list[int]]:
    """Return the orders that could be canonical: by nesting and kind, with every order of what that leaves equal."""

    @functools.cache
    def expression(number: int) -> tuple[int, str]:
        if number == 0:
            return (0, "x")
        name, sources = operations[number - 1]
        terms = sorted(expression(source) for source in sources)
        depth = 1 + max(depth for depth, _ in terms)
        return (depth, f"{name}({'+'.join(text for _, text in terms)})")

    numbers = sorted(range(1, len(operations) + 1), key=expression)
    groups = [list(group) for _, group in itertools.groupby(numbers, key=expression)]
    choices = itertools.product(*(itertools.permutations(group) for group in groups))
    return [[number for group in choice for number in group] for choice in choices]


def _renumbered(operations: Sequence[Operation], output: Sequence[int], order: Sequence[int]) -> Form:
    place = {0: 0} | {number: position for position, number in enumerate(order, start=1)}
    listed = tuple(
        (operations[number - 1][0], tuple(sorted(place[source] for source in operations[number - 1][1])))
        for number in order
    )
    return listed, tuple(sorted(place[source] for source in output))
