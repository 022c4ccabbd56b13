"""Rungs: every candidate is trained a little, the better ones more.

Optuna's pruners decide by one objective and `report` refuses two, so the rule is ours: synchronous successive halving
(Jamieson and Talwalkar 2016, arXiv:1502.07943) where "better" is the nondominated rank of metric and latency, ties
broken by crowding. Only feasible candidates whose training succeeded get here, so neither feasibility nor failure
needs a rank of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.pareto import crowding, ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """Training lengths and how many candidates climb.

    Attributes:
        epochs: Epochs at the end of each rung, increasing.
        keep: Share of candidates that climbs from one rung to the next.
    """

    epochs: tuple[int, ...] = (1, 2, 4)
    keep: float = 0.5

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if not self.epochs or list(self.epochs) != sorted(set(self.epochs)) or self.epochs[0] < 1:
            raise ValueError(f"epochs of rungs must increase from at least 1, got {self.epochs}")
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep must lie in (0, 1], got {self.keep}")


def promoted(batch: Sequence[str], results: Mapping[str, tuple[float, float]], *, keep: float) -> tuple[str, ...]:
    """Return which keys of `batch` climb, in their order.

    Args:
        batch: Keys that have finished a rung; those whose training failed are left out.
        results: (metric, latency) on that rung of every key that ever finished it, those of `batch` among them. A
            failed training has no metric and is left out: ranked with any, the cheapest of them would not be dominated.
        keep: Share of all of them that climbs.
    """
    keys = list(results)
    metric = np.array([results[key][0] for key in keys])
    cost = np.array([results[key][1] for key in keys])
    rank = ranks(metric, cost)
    lonely = np.empty(len(keys))
    for level in range(int(rank.max()) + 1):
        members = np.flatnonzero(rank == level)
        lonely[members] = crowding(metric[members], cost[members])
    order = np.lexsort((-metric, -lonely, rank))
    best = {keys[index] for index in order[: max(1, int(np.ceil(keep * len(keys))))]}
    return tuple(key for key in batch if key in best)
