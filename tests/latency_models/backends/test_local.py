"""This machine: the clock, the interleaving with a reference, wall times and the sustained run."""

import numpy as np
import pytest

from latency_models.backends.local import Local
from latency_models.measure import Rounds, take_rounds, take_visits
from latency_models.timing import RunsFiles, Sustained, Timing, WallClock
from search_spaces.errors import ConfigError, MeasurementError


def test_one_thread_is_timed_by_its_cpu_clock_and_several_by_the_wall():
    assert Local(threads=1).clock == "thread_cpu"
    assert Local(threads=2).clock == "wall"


def test_raw_samples_of_every_visit_are_kept(models):
    timings = Local(visits=3, visit_ms=0.5, drift=0.0).measure(models, models[0])
    assert [timing.name for timing in timings] == [path.name for path in models]
    assert all(len(timing.visits) == 3 and min(map(len, timing.visits)) >= 5 for timing in timings)
    assert timings[2].latency_ms > timings[0].latency_ms


def test_the_reference_is_visited_between_networks_and_every_round_has_another_order():
    calls = []
    take_visits(
        [lambda number=number: calls.append(number) for number in range(6)],
        lambda: calls.append("reference"),
        rounds=Rounds(visits=2, visit_ms=1e-9, warmup=0, least_runs=1, most_runs=1, reference_every=2, drift=0.0),
        clock="wall",
    )
    rounds = calls[-20:]  # what comes before finds out how many runs fill a visit
    first, second = rounds[:10], rounds[10:]
    assert [place for place, call in enumerate(first) if call == "reference"] == [0, 3, 6, 9]
    assert sorted(call for call in first if call != "reference") == list(range(6))
    assert first != second


def levels_round(levels):
    """Return a round whose reference stands at the next of `levels`; its networks tell which round it was."""
    given = iter(levels)

    def one_round(order):
        level = next(given)
        return level, [[level + item] for item in range(len(order))]

    return one_round


def test_a_round_whose_reference_strays_by_more_than_3_percent_is_taken_again():
    taken = take_rounds(levels_round([1.0, 1.05, 1.0, 1.01, 0.96, 1.02, 9.9]), 2, rounds=Rounds(visits=4, retries=4))
    assert taken.reference_ms == (1.0, 1.0, 1.01, 1.02)
    assert taken.discarded == 2
    assert [float(visit[0]) for visit in taken.visits[1]] == [2.0, 2.0, 2.01, 2.02]


def test_a_machine_of_two_levels_is_timed_at_the_one_it_has_most_often():
    taken = take_rounds(levels_round([1.0, 1.1, 1.2, 1.01, 1.19, 1.0]), 1, rounds=Rounds(visits=3, retries=3))
    assert taken.reference_ms == (1.0, 1.01, 1.0)
    assert taken.discarded == 3


def test_a_device_that_never_settles_is_no_measurement():
    with pytest.raises(MeasurementError, match="strayed by more than 3 % in"):
        take_rounds(levels_round([1.1**n for n in range(8)]), 1, rounds=Rounds(visits=4, retries=4))


def test_without_a_limit_of_drift_every_round_counts():
    taken = take_rounds(levels_round([1.0, 2.0, 3.0]), 1, rounds=Rounds(visits=3, drift=0.0))
    assert (taken.reference_ms, taken.discarded) == ((1.0, 2.0, 3.0), 0)


def test_wall_percentiles_of_single_inferences_are_ordered(models):
    timing = Local().distribution(models[0], runs=100)
    assert timing.clock == "wall"
    assert len(timing.visits[0]) == 100
    assert timing.percentile_ms(50) <= timing.percentile_ms(95) <= timing.percentile_ms(99)


def test_a_sustained_run_fills_its_time_and_tells_what_the_system_shows(models):
    found = Local().sustained(models[0], seconds=0.2)
    assert found.seconds >= 0.2
    assert found.runs >= 1
    assert found.p50_ms <= found.p95_ms <= found.p99_ms
    assert all({"elapsed_s", "p50_ms"} <= point.keys() for point in found.points)


def test_a_sustained_run_says_heat_clock_and_throttling():
    points = (
        {"elapsed_s": 1.0, "p50_ms": 2.0, "temperature_c": 45.0, "frequency_mhz": 1800, "throttled": "0x0"},
        {"elapsed_s": 2.0, "p50_ms": 3.0, "temperature_c": 81.0, "frequency_mhz": 1000, "throttled": "0x4"},
    )
    found = Sustained(seconds=2.0, runs=9, p50_ms=2.0, p95_ms=3.0, p99_ms=3.0, first_ms=2.0, last_ms=3.0, points=points)
    assert found.slowdown == pytest.approx(0.5)
    assert found.sentence() == (
        "9 runs in 2 s: p50 2 -> 3 ms, 45 -> 81 degrees C, 1000-1800 MHz, throttle flags 0x0, 0x4"
    )


def test_a_system_that_shows_nothing_says_so():
    point = ({"elapsed_s": 1.0, "p50_ms": 2.0},)
    found = Sustained(seconds=1.0, runs=1, p50_ms=2.0, p95_ms=2.0, p99_ms=2.0, first_ms=2.0, last_ms=2.0, points=point)
    assert "shows no temperature, clock or throttle flag" in found.sentence()


def test_this_machine_has_a_wall_clock_and_needs_no_comparison_with_itself():
    assert isinstance(Local(), WallClock)
    assert not isinstance(Local(), RunsFiles)


def test_cores_that_are_not_ours_are_refused():
    with pytest.raises(ConfigError, match="cores must be among"):
        Local(cores=(4096,))


def test_the_fingerprint_names_what_makes_another_device():
    one, two = Local(threads=1).fingerprint(), Local(threads=2).fingerprint()
    assert {key for key in one if one[key] != two[key]} == {"threads"}
    assert {"machine", "cpu", "instruction_sets", "runtime", "governor", "frequency_limits_mhz"} <= one.keys()


def test_the_percentile_is_that_of_numpy(rng):
    from latency_models.backends.timing_script import percentile

    samples = rng.random(37)
    for percent in (0, 5, 50, 95, 99, 100):
        assert percentile(list(samples), percent) == pytest.approx(float(np.percentile(samples, percent)))


def test_what_slows_a_whole_round_is_taken_out_by_its_reference():
    slow = (1.0, 1.02, 0.99, 1.025, 1.0)
    given = iter(slow)

    def one_round(order):
        level = next(given)
        return 0.4 * level, [[0.8 * level, 0.9 * level], [2.0 * level]]

    taken = take_rounds(one_round, 2, rounds=Rounds(visits=5, retries=0))
    timings = [Timing("x", visits, "wall", "measured", taken.levels()) for visits in taken.visits]
    assert taken.levels() == pytest.approx(slow)
    assert [timing.latency_ms for timing in timings] == pytest.approx([0.8, 2.0])
    found = timings[0].measurement()
    assert (found.lower, found.upper) == pytest.approx((0.8, 0.8))
    assert float(timings[0].visits[1][0]) == pytest.approx(0.8 * 1.02)  # what was taken stays as it was
    again = Timing.from_dict(timings[0].to_dict())
    assert again.levels == pytest.approx(slow)
    assert again.latency_ms == pytest.approx(0.8, rel=1e-5)


def test_levels_of_groups_are_told_against_all_of_them():
    taken = take_rounds(levels_round([1.0, 1.01, 0.99]), 1, rounds=Rounds(visits=3))
    assert taken.levels(2.0) == pytest.approx((0.5, 0.505, 0.495))


@pytest.mark.parametrize("levels", [(1.0,), (1.0, 0.0), (1.0, float("nan"))], ids=["too few", "none", "no number"])
def test_levels_that_belong_to_no_visits_are_refused(levels):
    with pytest.raises(ValueError, match="one level above 0 for each of 2 visits"):
        Timing("x", (np.ones(1), np.ones(1)), "wall", "measured", levels)


def test_a_measurement_keeps_the_level_of_every_round(models):
    (timing,) = Local(visits=3, visit_ms=0.5, drift=0.0).measure(models[:1], models[0])
    assert len(timing.levels) == 3
    assert float(np.median(timing.levels)) == pytest.approx(1.0)
