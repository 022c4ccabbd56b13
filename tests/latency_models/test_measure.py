import time

import numpy as np
import pytest

from latency_models.measure import Rounds, take_visits
from latency_models.timing import Timing
from search_spaces.errors import MeasurementError

REFERENCE_MS = 1.0
ROUNDS = Rounds(visits=5, visit_ms=4.0, warmup=2, least_runs=2, most_runs=50, reference_every=2, drift=0.03, retries=4)


class Machine:
    """A machine whose clock is advanced by what runs on it, so that every timing is known beforehand."""

    def __init__(self, monkeypatch, clock="perf_counter"):
        self.now = 0.0
        self.calls = []
        self.slowness = lambda _calls: 1.0
        monkeypatch.setattr(time, clock, lambda: self.now)

    def network(self, name, ms, first_ms=None):
        """Return what runs one network; its first run after another network takes `first_ms`."""

        def run():
            cold = first_ms is not None and (not self.calls or self.calls[-1] != name)
            self.calls.append(name)
            self.now += (first_ms if cold else ms) * self.slowness(self.calls) / 1e3

        return run

    def visits(self, name):
        """Return how often a network was begun anew."""
        return sum(now == name != before for before, now in zip(["", *self.calls], self.calls, strict=False))


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def latencies(taken):
    return [Timing("x", visits, "wall").latency_ms for visits in taken.visits]


def measure(machine, times_ms, rounds=ROUNDS, clock="wall", **options):
    runs = [machine.network(str(number), ms) for number, ms in enumerate(times_ms)]
    return take_visits(runs, machine.network("reference", REFERENCE_MS), rounds=rounds, clock=clock, **options)


# -- a quiet machine


def test_a_quiet_machine_gives_every_time_exactly(machine):
    times = [0.3, 2.0, 0.05, 1.0, 7.0]
    taken = measure(machine, times)
    assert latencies(taken) == pytest.approx(times)
    assert taken.reference_ms == pytest.approx([REFERENCE_MS] * 5)
    assert taken.discarded == 0


def test_a_visit_fills_its_time_within_the_least_and_most_runs(machine):
    taken = measure(machine, [0.5, 10.0, 0.01])
    assert [{len(visit) for visit in visits} for visits in taken.visits] == [{8}, {2}, {50}]
    assert [len(visits) for visits in taken.visits] == [5, 5, 5]


def test_runs_that_begin_a_visit_are_not_counted(machine):
    slow_start = machine.network("a", 0.5, first_ms=5.0)
    other = machine.network("b", 0.5)
    taken = take_visits([slow_start, other], machine.network("reference", 1.0), rounds=ROUNDS, clock="wall")
    assert np.concatenate(taken.visits[0]) == pytest.approx(np.full(40, 0.5))


def test_the_reference_is_visited_between_networks_and_after_the_last(machine):
    measure(machine, [1.0] * 5)
    # Before networks 1, 3 and 5 of a round and at its end; the end of a round meets the next one's beginning.
    assert machine.visits("reference") == 5 * 4 - 4


def test_every_round_has_another_order_and_the_seed_decides(monkeypatch):
    def order(seed):
        machine = Machine(monkeypatch)
        measure(machine, [1.0] * 6, seed=seed)
        names = [name for before, name in zip(["", *machine.calls], machine.calls, strict=False) if name != before]
        return [name for name in names if name != "reference"][6:]

    assert order(0) == order(0)
    assert order(0) != order(1)
    rounds = np.array(order(0)).reshape(5, 6)
    assert {tuple(sorted(row)) for row in rounds} == {("0", "1", "2", "3", "4", "5")}
    assert len({tuple(row) for row in rounds}) > 1


def test_one_thread_is_timed_by_its_own_clock(monkeypatch):
    machine = Machine(monkeypatch, clock="thread_time")
    assert latencies(measure(machine, [0.25, 3.0], clock="thread_cpu")) == pytest.approx([0.25, 3.0])


def test_progress_ends_at_one(machine):
    told = []
    measure(machine, [1.0, 2.0], progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


# -- a machine with neighbours


def test_a_round_in_which_the_reference_strayed_is_taken_again(machine):
    rounds_seen = []

    def slowness(calls):
        rounds_seen.append(calls[-1])
        return 1.5 if 100 < len(calls) <= 160 else 1.0

    machine.slowness = slowness
    times = [0.5, 1.0, 2.0]
    taken = measure(machine, times, rounds=Rounds(visits=5, visit_ms=4.0, reference_every=1, retries=5, least_runs=2))
    assert taken.discarded >= 1
    assert latencies(taken) == pytest.approx(times)
    assert all(level == pytest.approx(REFERENCE_MS) for level in taken.reference_ms)
    assert {len(visits) for visits in taken.visits} == {5}


def test_one_disturbed_run_in_a_visit_is_forgotten(machine):
    machine.slowness = lambda calls: 9.0 if len(calls) % 7 == 0 else 1.0
    assert latencies(measure(machine, [0.5, 1.0, 2.0])) == pytest.approx([0.5, 1.0, 2.0])


def test_a_machine_that_never_settles_is_an_error_that_says_so(machine):
    machine.slowness = lambda calls: 1.0 + 0.01 * len(calls)
    with pytest.raises(MeasurementError, match=r"the reference network strayed by more than 3 ?% in \d+ of 9 rounds"):
        measure(machine, [0.5, 1.0, 2.0])


def test_without_a_limit_of_drift_every_round_counts(machine):
    machine.slowness = lambda calls: 1.0 + 0.01 * len(calls)
    taken = measure(machine, [0.5, 1.0], rounds=Rounds(visits=4, visit_ms=4.0, least_runs=2, drift=0.0))
    assert (taken.discarded, len(taken.visits[0])) == (0, 4)


@pytest.mark.parametrize(
    "options", [{"visits": 0}, {"visit_ms": 0.0}, {"least_runs": 0}, {"reference_every": 0}], ids=str
)
def test_rounds_that_time_nothing_are_refused(options):
    with pytest.raises(ValueError, match="must be positive"):
        Rounds(**options)


# -- what a timing says


def test_the_latency_is_the_median_over_visits_of_each_visits_least_sample():
    timing = Timing("x.onnx", (np.array([3.0, 1.0]), np.array([9.0]), np.array([2.0, 8.0, 7.0])))
    assert timing.latency_ms == 2.0
    known = timing.measurement(source="board")
    assert (known.value, known.origin, known.source) == (2.0, "measured", "board")
    assert (known.lower, known.upper) == pytest.approx(tuple(np.percentile([1.0, 9.0, 2.0], [5, 95])))


def test_percentiles_are_of_all_samples():
    timing = Timing("x.onnx", (np.arange(1.0, 51.0), np.arange(51.0, 101.0)))
    assert timing.percentile_ms(50) == 50.5
    assert timing.percentile_ms(100) == 100.0


def test_a_timing_comes_back_from_its_json_to_the_nanosecond():
    timing = Timing("x.onnx", (np.array([0.1234567891, 2.0]), np.array([3.0])), "wall", "estimated")
    again = Timing.from_dict(timing.to_dict())
    assert (again.name, again.clock, again.origin) == ("x.onnx", "wall", "estimated")
    assert [visit.tolist() for visit in again.visits] == [[0.123457, 2.0], [3.0]]


@pytest.mark.parametrize(
    "visits", [(), (np.array([]),), (np.array([1.0]), np.array([]))], ids=["none", "empty", "one empty"]
)
def test_a_timing_without_samples_is_refused(visits):
    with pytest.raises(ValueError, match="at least one sample in every visit"):
        Timing("x.onnx", visits)
