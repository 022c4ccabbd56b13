"""The timing protocol: interleaved visits with a reference network, and rounds that drifted taken again.

Networks are visited in rounds, each round in another order. A visit is some warm-up runs and then as many timed
runs as fit a few milliseconds. Between networks the reference is visited; a round in which it strays from its own
median is not used and another one is run instead. What a neighbour does on a shared machine then hits all networks
alike, a few visits at worst. The loops themselves stand in `backends.timing_script`, which boards run as it is.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latency_models.backends import timing_script as protocol
from latency_models.failures import FileFailure, Outcome
from latency_models.timing import Clock, Timing
from search_spaces.errors import MeasurementError
from search_spaces.measurement import Origin

Run = Callable[[], object]
Visit = npt.NDArray[np.float64]
OneRound = Callable[[Sequence[int]], tuple[float, list[Sequence[float]]]]
"""Visits every network once in the order given; returns the reference's level and every network's samples."""


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

    visits: int = 13
    visit_ms: float = 8.0
    warmup: int = 2
    least_runs: int = 5
    most_runs: int = 200
    reference_every: int = 10
    drift: float = 0.03
    retries: int = 13

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
        refused: Failures of networks by their number; what was taken of these counts for nothing.
    """

    visits: tuple[tuple[Visit, ...], ...]
    reference_ms: tuple[float, ...]
    discarded: int
    refused: Mapping[int, FileFailure] = field(default_factory=dict)

    def levels(self, center_ms: float | None = None) -> tuple[float, ...]:
        """Return what the reference took in every round over `center_ms`, by default its median over the rounds."""
        center = float(np.median(self.reference_ms)) if center_ms is None else center_ms
        return tuple(level / center for level in self.reference_ms)

    def outcomes(
        self, files: Sequence[Path], clock: Clock, origin: Origin = "measured", levels: tuple[float, ...] = ()
    ) -> list[Outcome]:
        """Return the timing of every file, or why it has none."""
        return [
            self.refused[place] if place in self.refused else Timing(path.name, visits, clock, origin, levels)
            for place, (path, visits) in enumerate(zip(files, self.visits, strict=True))
        ]


def take_visits(
    runs: Sequence[Run],
    reference: Run,
    *,
    rounds: Rounds,
    clock: Clock,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> Taken:
    """Time `runs`, interleaved with `reference`; one that raises FileFailure is left out from then on.

    Args:
        runs: Each runs one network once.
        reference: Runs the reference network once.
        rounds: How often and how long.
        clock: "thread_cpu" where everything runs in the calling thread, else "wall".
        seed: Of the order of visits.
        progress: Told the share done.

    Raises:
        FileFailure: The reference's own.
        MeasurementError: The reference strayed in so many rounds that fewer than half of `rounds.visits` remain.
    """
    now = time.thread_time if clock == "thread_cpu" else time.perf_counter
    return take_visitors(
        [partial(_visitor, run, rounds, now) for run in runs],
        partial(_visitor, reference, rounds, now),
        rounds=rounds,
        seed=seed,
        progress=progress,
    )


def take_visitors(
    makers: Sequence[Callable[[], protocol.Visitor]],
    reference: Callable[[], protocol.Visitor],
    *,
    rounds: Rounds,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> Taken:
    """Take rounds of visits, each of which returns its samples; what raises FileFailure is left out from then on.

    Args:
        makers: Each returns what visits one network.
        reference: Returns what visits the reference network.
        rounds: How many, and after how many networks the reference is visited.
        seed: Of the order of visits.
        progress: Told the share done.

    Raises:
        FileFailure: The reference's own.
        MeasurementError: The reference strayed in so many rounds that fewer than half of `rounds.visits` remain.
    """
    refused: dict[int, FileFailure] = {}
    visitors = [protocol.spared(place, make, FileFailure, refused) for place, make in enumerate(makers)]
    steady = reference()
    taken = take_rounds(
        lambda order: protocol.one_round(visitors, steady, order, rounds.reference_every),
        len(visitors),
        rounds=rounds,
        seed=seed,
        progress=progress,
    )
    return replace(taken, refused=refused)


def take_rounds(
    one_round: OneRound,
    items: int,
    *,
    rounds: Rounds,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> Taken:
    """Take rounds from anything that can visit `items` networks in a given order.

    Args:
        one_round: Given an order, visits every network once; returns the reference's level and the samples of every
            network, in milliseconds.
        items: Number of networks.
        rounds: How many rounds count, how many may be taken again, and when one is.
        seed: Of the orders.
        progress: Told the share done.

    Raises:
        MeasurementError: The reference strayed in so many rounds that fewer than half of `rounds.visits` remain.
    """
    good, taken = protocol.take_rounds(
        one_round,
        items,
        visits=rounds.visits,
        retries=rounds.retries if rounds.drift > 0 else 0,
        drift=rounds.drift,
        seed=seed,
        progress=progress,
    )
    if 2 * len(good) < rounds.visits:
        raise MeasurementError(
            f"the reference network strayed by more than {100 * rounds.drift:g} % in {taken - len(good)} of {taken} "
            f"rounds (load of this machine {os.getloadavg()[0]:.1f}): wait until the device is quieter, "
            "or raise `drift`"
        )
    visits = tuple(tuple(np.asarray(found[item], dtype=np.float64) for _, found in good) for item in range(items))
    return Taken(visits, tuple(level for level, _ in good), taken - len(good))


def _visitor(run: Run, rounds: Rounds, now: Callable[[], float]) -> protocol.Visitor:
    count = protocol.runs_of_visit(run, rounds.visit_ms, rounds.least_runs, rounds.most_runs, now)
    return lambda: protocol.visit(run, count, rounds.warmup, now)
