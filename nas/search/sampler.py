"""Our sampler: proposes the network with the greatest expected gain of hypervolume, latency being known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from nas.search.objectives import Floats, RowCosts
from nas.search.pareto import front_order
from nas.search.surrogate import GaussianProcess, expected_gain
from search_spaces.space import Row, Rows, SearchSpace, crossover, encode, mutate, num_options, sample


class GuidedSampler(BaseSampler):
    """Optuna sampler for studies that maximize a metric and minimize a latency that `costs` predicts.

    The first proposals spread over latency: half of them the network with most MACs in its slice, half at random. After
    that a Gaussian process models the metric, and the candidate with the greatest expected hypervolume gain is
    proposed, out of random rows, mutants of the front and crossings within it. Only feasible rows that no trial
    holds are proposed. Running trials count as finished with their expected value.

    It works in any study whose parameters are the categorical choices of `space` and whose objectives are
    (metric, maximize) and (the latency that `costs` predicts, minimize).

    Args:
        space: The search space.
        costs: What rows cost.
        feasible: Some rows that fit, from `nas.search.feasible.survey`.
        seed: Of every proposal, together with the number of trials so far: an interrupted study goes on alike.
        startup: Proposals before the model takes over.
        pool: Candidates compared for one proposal.
    """

    def __init__(
        self,
        space: SearchSpace,
        costs: RowCosts,
        feasible: Rows,
        *,
        seed: int,
        startup: int = 16,
        pool: int = 3000,
    ) -> None:
        self._space = space
        self._costs = costs
        self._feasible = feasible
        self._seed = seed
        self._startup = startup
        self._pool = pool
        self._groups = np.repeat(np.arange(len(space.choices)), num_options(space))
        self._plan: Rows | None = None
        self._reseeds = 0

    def reseed_rng(self) -> None:
        """Draw other proposals from here on; Optuna calls it in parallel workers."""
        self._reseeds += 1

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all choices of the space."""
        return {choice.name: CategoricalDistribution(choice.options) for choice in self._space.choices}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:  # Any: Optuna's signature
        """Return the options of one proposal."""
        seen = self._seen(study, trial)
        rng = np.random.default_rng([self._seed, self._reseeds, len(seen.rows)])
        row = self._propose(seen, rng)
        return {
            choice.name: choice.options[int(number)] for choice, number in zip(self._space.choices, row, strict=True)
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # Any: Optuna's signature
        """Return a random value for a parameter that is no choice of the space."""
        rng = np.random.default_rng([self._seed, self._reseeds, trial.number, len(param_name)])
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[int(rng.integers(len(param_distribution.choices)))]
        return optuna.samplers.RandomSampler(int(rng.integers(2**31))).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _seen(self, study: optuna.Study, trial: FrozenTrial) -> "_Seen":
        """Return the feasible rows that other trials hold, and the metric where they are finished."""
        names = [choice.name for choice in self._space.choices]
        numbers = {
            choice.name: {option: n for n, option in enumerate(choice.options)} for choice in self._space.choices
        }
        rows, metric = [], []
        for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
            if other.number == trial.number or any(name not in other.params for name in names):
                continue
            if any(value > 0 for value in other.constraints.values()):
                continue
            rows.append([numbers[name][other.params[name]] for name in names])
            metric.append(other.values[0] if other.state == TrialState.COMPLETE else np.nan)
        return _Seen(np.array(rows, dtype=np.int64).reshape(-1, len(names)), np.array(metric))

    def _propose(self, seen: "_Seen", rng: np.random.Generator) -> Row:
        known = {row.tobytes() for row in seen.rows}
        if np.isfinite(seen.metric).sum() < self._startup:
            for row in self._startup_plan():
                if row.tobytes() not in known:
                    return _row(row)
        candidates = self._candidates(seen, known, rng)
        if np.isfinite(seen.metric).sum() < 3:
            return _row(candidates[int(rng.integers(len(candidates)))])
        return _row(candidates[int(self._gain(seen, candidates).argmax())])

    def _startup_plan(self) -> Rows:
        """Return rows spread over latency; made once, from the seed alone."""
        if self._plan is None:
            rng = np.random.default_rng([self._seed, 1])
            rows = self._feasible
            costs = self._costs(rows)
            order = np.argsort(costs.objective, kind="stable")
            chosen: list[int] = []
            for number, part in enumerate(np.array_split(order, self._startup)):
                if len(part):
                    best = part[int(costs.figures["macs"][part].argmax())]
                    chosen.append(int(best if number % 2 == 0 else rng.choice(part)))
            self._plan = rows[rng.permutation(chosen)]
        return self._plan

    def _candidates(self, seen: "_Seen", known: set[bytes], rng: np.random.Generator) -> Rows:
        """Return feasible rows not in any trial, at least one, else any feasible row."""
        third = self._pool // 3
        parents = (
            seen.rows[front_order(np.nan_to_num(seen.metric, nan=-np.inf), self._costs(seen.rows).objective)]
            if len(seen.rows)
            else self._feasible
        )
        if not len(parents):
            parents = self._feasible
        drawn = rng.integers(0, len(parents), third)
        other = rng.integers(0, len(parents), third)
        near = np.concatenate(
            [
                sample(self._space, third, rng),
                self._feasible[rng.integers(0, len(self._feasible), third)],
                mutate(self._space, parents[drawn], rng, rate=2.0 / len(self._space.choices)),
                mutate(self._space, crossover(parents[drawn], parents[other], rng), rng),
            ]
        )
        rows = np.unique(near, axis=0)
        rows = rows[self._costs(rows).feasible]
        new = np.array([row.tobytes() not in known for row in rows], dtype=np.bool_)
        return rows[new] if new.any() else self._feasible

    def _gain(self, seen: "_Seen", candidates: Rows) -> Floats:
        finished = np.isfinite(seen.metric)
        costs, candidate_costs = self._costs(seen.rows), self._costs(candidates)
        target = seen.metric[finished]
        # Far below the middle nothing can join the front, so how far does not matter to the model.
        middle = float(np.median(target))
        spread = float(np.median(np.abs(target - middle))) + 1e-9
        model = GaussianProcess.fit(
            encode(self._space, seen.rows[finished]),
            self._groups,
            _features(costs.figures)[finished],
            np.maximum(target, middle - 4 * spread),
        )
        metric = seen.metric.copy()
        if not finished.all():
            metric[~finished], _ = model.predict(
                encode(self._space, seen.rows[~finished]), _features(costs.figures)[~finished]
            )
        mean, deviation = model.predict(encode(self._space, candidates), _features(candidate_costs.figures))
        ceiling = 1.02 * float(max(candidate_costs.objective.max(), costs.objective.max()))
        floor = float(np.quantile(target, 0.25)) if len(target) > 3 else float(target.min())
        return expected_gain(mean, deviation, candidate_costs.objective, (metric, costs.objective), (floor, ceiling))


class FeasibleRandomSampler(GuidedSampler):
    """Proposes random rows that fit and that no trial holds: the control every search is compared with."""

    def _propose(self, seen: "_Seen", rng: np.random.Generator) -> Row:
        known = {row.tobytes() for row in seen.rows}
        for _ in range(20):
            rows = sample(self._space, 2000, rng)
            for row in rows[self._costs(rows).feasible]:
                if row.tobytes() not in known:
                    return _row(row)
        return _row(self._feasible[int(rng.integers(len(self._feasible)))])


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    rows: Rows
    metric: Floats


def _row(row: Row) -> Row:
    return row


def _features(figures: Any) -> Floats:  # Any: mapping of arrays
    names: Sequence[str] = [
        name for name in ("macs", "parameters", "peak_memory_bytes", "latency_ms") if name in figures
    ]
    logs: Floats = np.log(np.stack([np.maximum(figures[name], 1e-6) for name in names], axis=1))
    return logs
