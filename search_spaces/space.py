"""Search spaces: flat choices, a decoder, and free functions over rows of option numbers.

A **row** is one genotype: an integer array with the number of the chosen option for every choice, in the order of
`space.choices`. Rows are what the inner loop works on; `values` turns one into the mapping that `decode` and
Optuna see. Two rows may mean one network: the architecture's key decides, not the row.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.errors import SpaceError
from search_spaces.registry import Registry

Option = int | float | str | bool
Values = Mapping[str, Option]
Row = npt.NDArray[np.int64]
"""`num_choices` option numbers: one genotype."""
Rows = npt.NDArray[np.int64]
"""`n x num_choices` option numbers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: a name and its options, in an order that means something where they are numbers."""

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options or len(set(self.options)) != len(self.options):
            raise SpaceError(f"choice {self.name!r} needs distinct options, got {self.options}")


@runtime_checkable
class SearchSpace(Protocol):
    """A flat tuple of choices and a total function from their values to a network.

    Registered spaces are frozen dataclasses. Where they have fields `classes` and `channels`, a run fills them in
    from its task.
    """

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All choices, flat, fixed, without conditions; what a choice does not affect, `decode` ignores."""
        ...

    def decode(self, values: Values) -> Architecture:
        """Return the network that the values mean; defined for every combination."""
        ...


SEARCH_SPACES: Registry[SearchSpace] = Registry(
    "search space",
    group="embedded_nas.search_spaces",
    builtin=(
        "search_spaces.efficientnet",
        "search_spaces.fbnet",
        "search_spaces.ghostnet",
        "search_spaces.hybrid",
        "search_spaces.mcunet",
        "search_spaces.mixed",
        "search_spaces.mobilenet_v1",
        "search_spaces.mobilenet_v2",
        "search_spaces.mobilenet_v3",
        "search_spaces.mobilenet_v4",
        "search_spaces.nasbench201",
        "search_spaces.ofa_mobilenet_v3",
        "search_spaces.resnet",
        "search_spaces.shufflenet_v1",
        "search_spaces.shufflenet_v2",
        "search_spaces.squeezenet",
    ),
)


@dataclass(frozen=True, slots=True)
class Position:
    """One stage of a chain: the choices it reads and the blocks they mean.

    Attributes:
        choices: What it reads; choices of one name must be equal in all positions.
        blocks: Called with the shape that arrives (channels, height, width) and the values of `choices`.
    """

    choices: tuple[Choice, ...]
    blocks: Callable[[Shape, Values], tuple[Block, ...]]

    def made(self, shape: Shape, values: Values) -> tuple[Block, ...]:
        """Return the blocks that the values mean; raises SpaceError naming values that no block can have."""
        chosen = {choice.name: values[choice.name] for choice in self.choices}
        try:
            return self.blocks(shape, chosen)
        except ValueError as error:
            told = ", ".join(f"{name} = {value!r}" for name, value in chosen.items()) or "the space"
            raise SpaceError(f"{told} makes no block: {error}; change these options of the space") from error


@dataclass(frozen=True, slots=True)
class Chain:
    """Possible input shapes and an ordered tuple of positions; more than one input adds a choice `resolution`."""

    inputs: tuple[tuple[int, int, int], ...]
    positions: tuple[Position, ...]


class ChainSpace:
    """A space whose networks are chains: choices, `decode` and the array tables all follow from `chain`.

    A family inherits it, as a frozen dataclass, and defines `chain` alone.
    """

    __slots__ = ()

    @property
    def chain(self) -> Chain:
        """The space as positions; called often, so it should build its tuples from the fields alone."""
        raise NotImplementedError(f"{type(self).__name__} must define `chain`")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The resolution where there are several, then the choices of the positions in order of first use."""
        return _chain_choices(self)

    def decode(self, values: Values) -> Architecture:
        """Return the network; raises SpaceError for a missing choice or a value that is no option of it."""
        from search_spaces.lowering import lower_block

        chain = _chain(self)
        check_values(self.choices, values)
        first = chain.inputs[0]
        if len(chain.inputs) > 1:
            first = next(shape for shape in chain.inputs if shape[1] == values["resolution"])
        shape: Shape = first
        stages = []
        for position in chain.positions:
            blocks = position.made(shape, values)
            stages.append(blocks)
            for block in blocks:
                shape = lower_block(block, shape).output.shape[1:]
        return Architecture(first, tuple(stages))


@functools.lru_cache(maxsize=64)
def _chain(space: ChainSpace) -> Chain:
    return space.chain


@functools.lru_cache(maxsize=64)
def _chain_choices(space: ChainSpace) -> tuple[Choice, ...]:
    chain = _chain(space)
    found: dict[str, Choice] = {}
    if len(chain.inputs) > 1:
        found["resolution"] = Choice("resolution", tuple(shape[1] for shape in chain.inputs))
    for position in chain.positions:
        for choice in position.choices:
            if found.setdefault(choice.name, choice) != choice:
                raise SpaceError(f"choice {choice.name!r} has other options in another position")
    return tuple(found.values())


def check_values(choices: tuple[Choice, ...], values: Values) -> None:
    """Raise SpaceError for a choice without value or a value that is no option of it."""
    for choice in choices:
        if choice.name not in values:
            raise SpaceError(f"choice {choice.name!r} has no value")
        if values[choice.name] not in choice.options:
            raise SpaceError(f"{choice.name!r} must be one of {choice.options}, got {values[choice.name]!r}")


def values(space: SearchSpace, row: Row) -> dict[str, Option]:
    """Return the chosen option of every choice, by name."""
    return {choice.name: choice.options[number] for choice, number in zip(space.choices, row, strict=True)}


def row(space: SearchSpace, chosen: Values) -> Row:
    """Return the row of the given values; the inverse of `values`."""
    return np.array([choice.options.index(chosen[choice.name]) for choice in space.choices], dtype=np.int64)


def decode(space: SearchSpace, row: Row) -> Architecture:
    """Return the network of a row."""
    return space.decode(values(space, row))


def num_options(space: SearchSpace) -> npt.NDArray[np.int64]:
    """Return the number of options of every choice."""
    return np.array([len(choice.options) for choice in space.choices], dtype=np.int64)


def sample(space: SearchSpace, count: int, rng: np.random.Generator) -> Rows:
    """Return `count` rows, every option equally likely; repeats are possible."""
    return rng.integers(0, num_options(space), (count, len(space.choices)))


def mutate(space: SearchSpace, rows: Rows, rng: np.random.Generator, *, rate: float | None = None) -> Rows:
    """Return copies of `rows` with at least one choice changed to another option.

    Args:
        space: The space of the rows.
        rows: `n x num_choices`.
        rng: Where randomness comes from.
        rate: Probability of each choice to change; the default is one choice in expectation.
    """
    sizes = num_options(space)
    movable = np.flatnonzero(sizes > 1)
    if not len(movable):
        return rows.copy()
    rate = 1.0 / len(movable) if rate is None else rate
    flips = rng.random(rows.shape) < rate
    flips[:, sizes == 1] = False
    still = ~flips.any(axis=1)
    flips[np.flatnonzero(still), rng.choice(movable, int(still.sum()))] = True
    steps = rng.integers(1, np.maximum(sizes, 2), rows.shape)
    mutants: Rows = np.where(flips, (rows + steps) % sizes, rows)
    return mutants


def crossover(first: Rows, second: Rows, rng: np.random.Generator) -> Rows:
    """Return rows that take every choice from one of both parents, with equal chance."""
    children: Rows = np.where(rng.random(first.shape) < 0.5, first, second)
    return children


def neighbours(space: SearchSpace, row: Row) -> Rows:
    """Return every row that differs from `row` in one choice."""
    found = []
    for column, size in enumerate(num_options(space)):
        for number in range(size):
            if number != row[column]:
                other = row.copy()
                other[column] = number
                found.append(other)
    return np.array(found, dtype=np.int64).reshape(-1, len(row))


def enumerate_rows(space: SearchSpace) -> Iterator[Row]:
    """Yield every row in lexicographic order."""
    for numbers in itertools.product(*(range(size) for size in num_options(space))):
        yield np.array(numbers, dtype=np.int64)


def encode(space: SearchSpace, rows: Rows) -> npt.NDArray[np.float64]:
    """Return the one-hot form of rows, `n x sum(num_options)`."""
    parts = [np.eye(size)[rows[:, column]] for column, size in enumerate(num_options(space))]
    return np.concatenate(parts, axis=1)


def size(space: SearchSpace) -> int:
    """Return the exact number of rows."""
    return math.prod(int(count) for count in num_options(space))


def num_architectures(space: SearchSpace, *, limit: int = 200_000) -> int:
    """Return the exact number of distinct networks, by decoding every row.

    Raises:
        SpaceError: The space has more than `limit` rows.
    """
    if size(space) > limit:
        raise SpaceError(f"counting distinct networks needs all {size(space)} rows decoded; the limit is {limit}")
    return len({decode(space, row).key for row in enumerate_rows(space)})
