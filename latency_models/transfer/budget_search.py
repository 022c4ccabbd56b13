"""The best network within a latency budget, by timing few networks.

Constrained expected improvement (Schonlau, Welch and Jones 1998; Gardner et al. 2014, ICML) with the score known and
only the latency uncertain: the next network to time maximizes its gain in score times the probability that it meets
the budget. Only networks that were timed can be returned, so the budget holds for what is returned: a cheap predictor
alone is exploited by the search, which selects just those networks whose latency it underestimates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.few_shot import Features, FewShotOptions, fit_device, forecast, take
from latency_models.transfer.operators import IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BudgetResult:
    """Outcome of a search.

    Attributes:
        best: Row of the returned network, None if no timed network met the budget.
        timed: Rows of all timed networks in order, the first measurements included.
    """

    best: int | None
    timed: IntArray


def best_within_budget(
    features: Features,
    score: Array,
    measure: Callable[[int], float],
    *,
    first: IntArray,
    budget_ms: float,
    extra: int = 10,
    options: FewShotOptions | None = None,
    shortlist: int = 2000,
) -> BudgetResult:
    """Search `n` candidate networks.

    Args:
        features: Model inputs of the candidates.
        score: `n` values to maximize, known without timing.
        measure: Times one candidate, in milliseconds; called once for each row it is asked for.
        first: Rows timed before the first fit.
        budget_ms: Largest allowed latency.
        extra: How many more candidates may be timed.
        options: Settings of the predictor.
        shortlist: Candidates that stay under consideration after the first fit.
    """
    timed = [int(row) for row in first]
    latency = [measure(row) for row in timed]
    candidates = np.arange(len(score))
    for step in range(extra):
        best = _best(score, timed, latency, budget_ms)
        floor = float(score.min()) - 1.0 if best is None else float(score[best])
        candidates = candidates[(score[candidates] > floor) & ~np.isin(candidates, timed)]
        if len(candidates) == 0:
            break
        model = fit_device(take(features, np.asarray(timed)), np.asarray(latency), options)
        chance = forecast(model, take(features, candidates)).probability_below(budget_ms)
        gain = chance * (score[candidates] - floor)
        pick = int(candidates[np.argmax(gain)])
        if step == 0 and len(candidates) > shortlist:
            candidates = candidates[np.argpartition(-gain, shortlist)[:shortlist]]
        timed.append(pick)
        latency.append(measure(pick))
    return BudgetResult(best=_best(score, timed, latency, budget_ms), timed=np.asarray(timed))


def best_without_timing(
    features: Features, score: Array, latency_ms: Array, *, first: IntArray, budget_ms: float, level: float = 0.9
) -> int:
    """Return the best network whose `level` quantile is within the budget; no further timing, no guarantee.

    Args:
        features: Model inputs of the candidates.
        score: `n` values to maximize.
        latency_ms: Latencies of the rows `first`.
        first: Rows that were timed.
        budget_ms: Largest allowed latency.
        level: Required probability; the network most likely to fit is returned if none reaches it.
    """
    predicted = forecast(fit_device(take(features, first), latency_ms), features)
    upper = predicted.quantile_ms(level)
    upper[first] = latency_ms
    allowed = np.flatnonzero(upper <= budget_ms)
    return int(allowed[np.argmax(score[allowed])]) if len(allowed) else int(np.argmin(upper))


def _best(score: Array, timed: list[int], latency: list[float], budget_ms: float) -> int | None:
    """Return the row of the best timed network within the budget, or None."""
    allowed = [row for row, ms in zip(timed, latency, strict=True) if ms <= budget_ms]
    return max(allowed, key=lambda row: float(score[row])) if allowed else None
