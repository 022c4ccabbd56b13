"""A device's allowed operators, applied to a search space before anything is sampled.

An option is removed when every network with it needs an operator that the device lacks. What remains may still
combine into such a network (for example where an operator appears only for one option of one choice *and* one of
another): those are rejected one by one, by the count of `unsupported_ops`, which is a cost like any other.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from search_spaces.architecture import Architecture
from search_spaces.errors import InfeasibleError
from search_spaces.fusion import activation_of, fuse_segment
from search_spaces.lowering import lower
from search_spaces.space import Chain, ChainSpace, Choice, SearchSpace, Values, decode
from search_spaces.workload import KINDS, Segment

Row = npt.NDArray[np.int64]

STARTS = 4
"""Random rows from which an option's networks are searched besides the known good row."""


def unsupported_ops(segment: Segment, allow_ops: Collection[str]) -> tuple[str, ...]:
    """Return the operator kinds of a segment, once for each occurrence, that are not allowed.

    Operators are counted as runtimes execute them: fused, with a fused activation as a kind of its own, and without
    reshapes, which move nothing.
    """
    fused = fuse_segment(segment).ops
    kinds = [kind for op in fused for kind in (op.kind, activation_of(op)) if kind and kind != "reshape"]
    return tuple(kind for kind in kinds if kind not in allow_ops)


def restrict(space: SearchSpace, allow_ops: Collection[str], *, seed: int = 0) -> SearchSpace:
    """Return the space without the options that only lead to operators outside `allow_ops`.

    Whether an option has a network without such operators is searched, not proven: from a network that has none,
    and from a few random ones, single choices are changed as long as that lowers the number of forbidden operators.
    An option with none found is removed. Choices keep their names; one that loses all but one option stays, with
    that option. A chain space stays a chain space.

    Args:
        space: Any space; not changed.
        allow_ops: Operator kinds of the device; empty for all.
        seed: Of the random networks.

    Raises:
        InfeasibleError: No network without forbidden operators was found.
        ValueError: `allow_ops` holds a word that is no operator kind.
    """
    unknown = set(allow_ops) - KINDS
    if unknown:
        raise ValueError(f"allow_ops must hold operator kinds, got {', '.join(sorted(unknown))}")
    if not allow_ops:
        return space
    search = _Search(space, frozenset(allow_ops), np.random.default_rng(seed))
    kept = search.kept_choices()
    if kept == space.choices:
        return space
    return RestrictedChainSpace(space, kept) if isinstance(space, ChainSpace) else RestrictedSpace(space, kept)


@dataclass(frozen=True, slots=True)
class RestrictedSpace:
    """A space with fewer options; what `restrict` returns for a space that is no chain.

    Attributes:
        space: The whole space.
        choices: Its choices, with the options that are left.
    """

    space: SearchSpace
    choices: tuple[Choice, ...]

    def decode(self, values: Values) -> Architecture:
        """Return the network that the values mean in the whole space."""
        return self.space.decode(values)


@dataclass(frozen=True, slots=True)
class RestrictedChainSpace(ChainSpace):
    """A chain space with fewer options, so that array tables work on it too.

    Attributes:
        space: The whole space.
        kept: Its choices, with the options that are left.
    """

    space: ChainSpace
    kept: tuple[Choice, ...]

    @property
    def chain(self) -> Chain:
        """The whole space's chain, with the options that are left."""
        left = {choice.name: choice for choice in self.kept}
        whole = self.space.chain
        inputs = whole.inputs
        if "resolution" in left:
            inputs = tuple(shape for shape in inputs if shape[1] in left["resolution"].options)
        positions = (
            replace(position, choices=tuple(left[choice.name] for choice in position.choices))
            for position in whole.positions
        )
        return Chain(inputs, tuple(positions))


class _Search:
    """Looks for networks without forbidden operators."""

    def __init__(self, space: SearchSpace, allowed: frozenset[str], rng: np.random.Generator) -> None:
        self._space = space
        self._sizes = [len(choice.options) for choice in space.choices]
        self._allowed = allowed
        self._rng = rng
        self._count = functools.lru_cache(maxsize=65536)(lambda numbers: len(self._forbidden(numbers)))

    def kept_choices(self) -> tuple[Choice, ...]:
        """Return the choices with the options for which a network was found."""
        good = self._good_row()
        left = []
        for column, choice in enumerate(self._space.choices):
            options = tuple(
                option for number, option in enumerate(choice.options) if self._is_possible(good, column, number)
            )
            left.append(Choice(choice.name, options))
        return tuple(left)

    def _good_row(self) -> Row:
        found = (self._descend(row, fixed=-1) for row in self._random_rows(4 * STARTS))
        rows = sorted(found, key=lambda row: self._count(tuple(row)))
        if self._count(tuple(rows[0])):
            forbidden = ", ".join(sorted(set(self._forbidden(tuple(rows[0])))))
            raise InfeasibleError(
                f"no network of {type(self._space).__name__} was found without {forbidden}, which allow_ops of the "
                "device lacks: allow it, or take another space"
            )
        return rows[0]

    def _is_possible(self, good: Row, column: int, number: int) -> bool:
        for start in (good, *self._random_rows(STARTS)):
            row = start.copy()
            row[column] = number
            if not self._count(tuple(self._descend(row, fixed=column))):
                return True
        return False

    def _descend(self, row: Row, *, fixed: int) -> Row:
        """Change one choice after the other, but the fixed one, while fewer operators are forbidden."""
        best, improves = self._count(tuple(row)), True
        while best and improves:
            improves = False
            for column in self._rng.permutation(len(self._sizes)):
                if column == fixed or not best:
                    continue
                for number in range(self._sizes[column]):
                    trial = row.copy()
                    trial[column] = number
                    count = self._count(tuple(trial))
                    if count < best:
                        row, best, improves = trial, count, True
        return row

    def _random_rows(self, count: int) -> Row:
        return self._rng.integers(0, self._sizes, (count, len(self._sizes)))

    def _forbidden(self, numbers: Sequence[int]) -> list[str]:
        segments = lower(decode(self._space, np.array(numbers))).segments
        return [kind for segment in segments for kind in unsupported_ops(segment, self._allowed)]
