"""The timing protocol: interleaved visits with a reference network, and rounds that drifted taken again.

Networks are visited in rounds, each round in another order. A visit is some warm-up runs and then as many timed
runs as fit a few milliseconds. Between networks the reference is visited; a round in which it strays from its own
median is not used and another one is run instead. What a neighbour does on a shared machine then hits all networks
alike, a few visits at worst.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latency_models.timing import Clock
from search_spaces.errors import MeasurementError

Run = Callable[[], object]
Visit = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How often and how long networks are visited.

    Attributes:
        visits: Rounds that count.
        visit_ms: Time a visit's runs should fill.
        warmup: Untimed runs that begin a visit.
        least_runs: Fewest timed runs of a visit.
        most_runs: Most timed runs of a visit.
        reference_every: Networks between two visits of the reference.
        drift: Share by which the reference may stray from its median within a round.
        retries: Rounds that may be taken again before the measurement fails.
    """

    visits: int = 9
    visit_ms: float = 8.0
    warmup: int = 2
    least_runs: int = 5
    most_runs: int = 200
    reference_every: int = 10
    drift: float = 0.03
    retries: int = 9

    def __post_init__(self) -> None:
        if self.visits < 1 or self.least_runs < 1 or self.visit_ms <= 0 or self.reference_every < 1:
            raise ValueError(f"visits, runs and times must be positive, got {self}")


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Visits of every network, in milliseconds, of the rounds that count, and those of the reference.

    Attributes:
        visits: For every network, one array of samples for each round.
        reference_ms: Median over each counted round of the reference's visit minima.
        discarded: Rounds that were taken again.
    """

    visits: tuple[tuple[Visit, ...], ...]
    reference_ms: tuple[float, ...]
    discarded: int


def take_visits(
    runs: Sequence[Run],
    reference: Run,
    *,
    rounds: Rounds,
    clock: Clock,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> Taken:
    """Time `runs`, interleaved with `reference`.

    Args:
        runs: Each runs one network once.
        reference: Runs the reference network once.
        rounds: How often and how long.
        clock: "thread_cpu" where everything runs in the calling thread, else "wall".
        seed: Of the order of visits.
        progress: Told the share done.

    Raises:
        MeasurementError: The reference strayed in so many rounds that fewer than half of `rounds.visits` remain.
    """
    now = time.thread_time if clock == "thread_cpu" else time.perf_counter
    rng = np.random.default_rng(seed)
    counts = [_runs_of_visit(run, rounds, now) for run in (*runs, reference)]
    taken: list[tuple[float, list[Visit]]] = []
    for number in range(rounds.visits + rounds.retries):
        taken.append(_round(runs, reference, counts, rounds, now, rng))
        good = _good_rounds([level for level, _ in taken], rounds.drift)
        progress(min(1.0, len(good) / rounds.visits))
        if len(good) >= rounds.visits or (number + 1 >= rounds.visits and rounds.drift <= 0):
            break
    if 2 * len(good) < rounds.visits:
        raise MeasurementError(
            f"the reference network strayed by more than {rounds.drift:.0%} in {len(taken) - len(good)} of "
            f"{len(taken)} rounds (load {os.getloadavg()[0]:.1f}): wait for a quieter machine, or raise `drift`"
        )
    good = good[: rounds.visits]
    visits = tuple(tuple(taken[index][1][item] for index in good) for item in range(len(runs)))
    return Taken(visits, tuple(taken[index][0] for index in good), len(taken) - len(good))


def _runs_of_visit(run: Run, rounds: Rounds, now: Callable[[], float]) -> int:
    once = min(float(sample) for sample in _visit(run, 4, 1, now))
    return int(np.clip(rounds.visit_ms / max(once, 1e-6), rounds.least_runs, rounds.most_runs))


def _round(
    runs: Sequence[Run],
    reference: Run,
    counts: Sequence[int],
    rounds: Rounds,
    now: Callable[[], float],
    rng: np.random.Generator,
) -> tuple[float, list[Visit]]:
    """Visit everything once; return the reference's level and the visits in the order of `runs`."""
    visits: list[Visit] = [np.empty(0)] * len(runs)
    levels = []
    for place, item in enumerate(rng.permutation(len(runs))):
        if place % rounds.reference_every == 0:
            levels.append(float(_visit(reference, counts[-1], rounds.warmup, now).min()))
        visits[item] = _visit(runs[item], counts[item], rounds.warmup, now)
    levels.append(float(_visit(reference, counts[-1], rounds.warmup, now).min()))
    return float(np.median(levels)), visits


def _visit(run: Run, count: int, warmup: int, now: Callable[[], float]) -> Visit:
    for _ in range(warmup):
        run()
    samples = np.empty(count)
    for number in range(count):
        start = now()
        run()
        samples[number] = now() - start
    return samples * 1e3


def _good_rounds(levels: Sequence[float], drift: float) -> list[int]:
    center = float(np.median(levels))
    return [number for number, level in enumerate(levels) if drift <= 0 or abs(level / center - 1.0) <= drift]
