"""The feasible part of a space: how large it is, rows of it, and what to relax when it is empty."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.search.objectives import Costs, Floats, RowCosts
from search_spaces.errors import InfeasibleError
from search_spaces.space import Rows, SearchSpace, mutate, sample, size

_UNITS = {
    "latency_ms": "ms",
    "weight_bytes": "bytes",
    "peak_memory_bytes": "bytes",
    "macs": "MAC",
    "parameters": "parameters",
}


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What a sample of a space says about the budget.

    Attributes:
        share: Feasible share of rows drawn at random.
        drawn: Number of those rows.
        rows: Feasible rows found, by drawing and, where that found few, by local search.
    """

    share: float
    drawn: int
    rows: Rows


def survey(
    space: SearchSpace,
    costs: RowCosts,
    *,
    seed: int,
    draws: int = 4096,
    enough: int = 64,
    generations: int = 60,
) -> Survey:
    """Draw rows and say how many fit; search for feasible ones where drawing finds few.

    Args:
        space: Where to draw.
        costs: What rows cost.
        seed: Of the draws.
        draws: Number of random rows.
        enough: Feasible rows below which local search goes on.
        generations: Of the local search.

    Raises:
        InfeasibleError: Nothing fits; the message names the limit to relax and the least value found.
    """
    rng = np.random.default_rng(seed)
    rows = np.unique(sample(space, min(draws, 4 * size(space)), rng), axis=0)
    found = costs(rows)
    share = float(found.feasible.mean())
    feasible = rows[found.feasible]
    if len(feasible) < enough:
        pool, judged = _descend(space, costs, rows, lambda c: c.violation, generations, rng)
        feasible = np.unique(np.concatenate([feasible, pool[judged.feasible]]), axis=0)
    if not len(feasible):
        raise InfeasibleError(_what_to_relax(space, costs, rows, generations, rng))
    return Survey(share, len(rows), feasible)


def _descend(
    space: SearchSpace,
    costs: RowCosts,
    rows: Rows,
    score: Callable[[Costs], Floats],
    generations: int,
    rng: np.random.Generator,
) -> tuple[Rows, Costs]:
    """Evolve rows toward a low score by mutation and truncation; return the last population and its costs."""
    population = rows
    for _ in range(generations):
        best = population[np.argsort(score(costs(population)), kind="stable")[:128]]
        offspring = mutate(space, np.repeat(best, 4, axis=0), rng)
        population = np.unique(np.concatenate([best, offspring]), axis=0)
    return population, costs(population)


def _what_to_relax(space: SearchSpace, costs: RowCosts, rows: Rows, generations: int, rng: np.random.Generator) -> str:
    """Say for every limit what the least value is while the other limits hold, or by itself where they cannot."""
    parts = []
    for name, limit in costs.limits().items():
        for others in ([other for other in costs.limits() if other != name], []):
            least = _least(space, costs, rows, name, others, generations, rng)
            if least is not None:
                break
        if least is not None and least > limit:
            unit = _UNITS[name]
            held = "with the other limits met" if others else "by itself"
            parts.append(f"{name} = {limit:g} {unit} would have to be at least {_round_up(least)} {unit} {held}")
    if not parts:
        _, judged = _descend(space, costs, rows, lambda c: c.violation, generations, rng)
        closest = int(judged.violation.argmin())
        over = [name for name, values in judged.excess.items() if values[closest] > 0]
        parts.append(f"the closest network still exceeds {', '.join(over)}")
    searched = f"{len(rows)} random networks and {generations} generations of mutants"
    return f"no network of the space meets the budget: {'; '.join(parts)} (least values found among {searched})"


def _least(
    space: SearchSpace,
    costs: RowCosts,
    rows: Rows,
    name: str,
    others: list[str],
    generations: int,
    rng: np.random.Generator,
) -> float | None:
    """Return the least value of one limited figure among networks that meet the limits `others`, or None.

    Operators the device lacks are never allowed.
    """
    held = [*others, "unsupported operators", "operators never timed", "far outside the timed latencies"]

    def broken(c: Costs) -> Floats:
        total = np.zeros(len(c.objective))
        for other in held:
            if other in c.excess:
                total += np.maximum(c.excess[other], 0.0)
        return total

    _, judged = _descend(space, costs, rows, lambda c: 1e6 * broken(c) + c.excess[name], generations, rng)
    fits = broken(judged) <= 0
    if not fits.any():
        return None
    return float((judged.excess[name][fits].min() + 1.0) * costs.limits()[name])


def _round_up(value: float) -> str:
    """Return three significant digits, rounded up, so that the stated limit is enough."""
    digits = 2 - int(np.floor(np.log10(value)))
    return f"{np.ceil(value * 10.0**digits) / 10.0**digits:.{max(digits, 0)}f}"
