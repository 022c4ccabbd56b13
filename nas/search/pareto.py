"""Pareto fronts of a metric to maximize and a cost to minimize: ranks, crowding, hypervolume."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def nondominated(metric: Floats, cost: Floats) -> npt.NDArray[np.bool_]:
    """Return which of `n` points no other beats in one objective without losing in the other.

    Of points that are equal in both objectives the first counts.
    """
    order = np.lexsort((np.arange(len(cost)), -metric, cost))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], metric[order][:-1]]))
    front = np.zeros(len(cost), dtype=np.bool_)
    front[order] = metric[order] > best
    return front


def front_order(metric: Floats, cost: Floats) -> npt.NDArray[np.int64]:
    """Return the indices of the front from the cheapest to the dearest."""
    front = np.flatnonzero(nondominated(metric, cost))
    return front[np.argsort(cost[front], kind="stable")]


def ranks(metric: Floats, cost: Floats) -> npt.NDArray[np.int64]:
    """Return for every point how many fronts have to be taken away before it is nondominated (Deb et al. 2002)."""
    found = np.full(len(metric), -1, dtype=np.int64)
    rank = 0
    while (found < 0).any():
        left = np.flatnonzero(found < 0)
        found[left[nondominated(metric[left], cost[left])]] = rank
        rank += 1
    return found


def crowding(metric: Floats, cost: Floats) -> Floats:
    """Return the crowding distance of points of one front; its two ends are infinitely lonely (Deb et al. 2002)."""
    distance = np.zeros(len(metric))
    for values in (metric, cost):
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        distance[order[[0, -1]]] = np.inf
        if len(order) > 2 and span > 0:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance


def hypervolume(metric: Floats, cost: Floats, reference: tuple[float, float]) -> float:
    """Return the area that the points dominate above the reference (least metric, greatest cost).

    Points that do not beat the reference in both objectives add nothing.
    """
    floor, ceiling = reference
    useful = (metric > floor) & (cost < ceiling)
    if not useful.any():
        return 0.0
    metric, cost = metric[useful], cost[useful]
    front = front_order(metric, cost)
    steps = np.diff(np.append(cost[front], ceiling))
    return float((steps * (metric[front] - floor)).sum())
