import numpy as np
import pytest

from nas.gate import FIGURES, Gate, judge
from search_spaces.measurement import Measurement

N = 1000


@pytest.fixture
def labels(rng):
    return rng.integers(0, 4, N)


def spoiled(labels, count):
    """Return predictions that miss the first `count` images and hit all others."""
    predicted = labels.copy()
    predicted[:count] = (labels[:count] + 1) % 4
    return predicted


def decide(gate, labels, before, after, *, metric="accuracy", figures=None):
    return judge(gate, labels=labels, before=before, after=after, metric=metric, figures=figures or {}, seed=0)


def ms(value):
    return Measurement(value=value, unit="ms", origin="measured")


# -- exact cases


def test_identical_predictions_are_kept_even_where_nothing_may_be_lost(labels):
    predicted = spoiled(labels, 300)
    found = decide(Gate(max_drop=0.0), labels, predicted, predicted)
    assert found.verdict == "kept"
    assert (found.change.lower, found.change.change, found.change.upper) == (0.0, 0.0, 0.0)
    assert "over 1000 images: within a drop of 0.00" in found.reason


def test_all_images_lost_is_a_change_of_all_points_without_spread(labels):
    found = decide(Gate(max_drop=0.99), labels, labels, spoiled(labels, N))
    assert found.verdict == "reverted"
    assert (found.change.lower, found.change.upper) == (-1.0, -1.0)
    assert found.reason.startswith("accuracy changed by -100.00 points")


def test_all_images_won_is_kept(labels):
    found = decide(Gate(max_drop=0.0), labels, spoiled(labels, N), labels)
    assert (found.verdict, found.change.lower) == ("kept", 1.0)


def test_errors_that_move_to_other_images_are_no_loss_but_do_spread(labels):
    before = spoiled(labels, 100)
    after = before[::-1].copy()
    after[:] = labels
    after[-100:] = (labels[-100:] + 1) % 4
    found = decide(Gate(max_drop=0.0), labels, before, after)
    assert found.change.change == 0.0
    assert found.change.lower < 0.0 < found.change.upper
    assert found.verdict == "reverted"
    assert decide(Gate(max_drop=0.05), labels, before, after).verdict == "kept"


# -- the bound


def test_the_gate_looks_at_the_lower_end_and_not_at_the_change(labels):
    after = spoiled(labels, 20)
    found = decide(Gate(max_drop=0.02), labels, labels, after)
    assert found.change.change == pytest.approx(-0.02)
    assert found.verdict == "reverted"
    assert "beyond a drop of 2.00" in found.reason
    assert decide(Gate(max_drop=0.03), labels, labels, after).verdict == "kept"


def test_the_lower_end_is_the_5th_percentile_of_a_binomial(labels):
    # 20 of 1,000 images are lost: a resample loses Binomial(1000, 0.02) of them, whose 95th percentile is 28.
    found = decide(Gate(max_drop=0.0279), labels, labels, spoiled(labels, 20))
    assert found.change.lower == pytest.approx(-0.028, abs=0.0011)
    assert found.change.level == 0.9


def test_a_higher_level_asks_for_more(labels):
    after = spoiled(labels, 20)
    assert decide(Gate(max_drop=0.0295, level=0.9), labels, labels, after).verdict == "kept"
    assert decide(Gate(max_drop=0.0295, level=0.99), labels, labels, after).verdict == "reverted"


def test_too_few_images_say_what_they_cannot_resolve():
    labels = np.arange(50) % 4
    found = decide(Gate(max_drop=0.01), labels, labels, labels)
    assert found.verdict == "kept"
    assert found.reason.endswith(
        "over 50 images: within a drop of 1.00; 50 images cannot resolve less than 5.82 points"
    )


def test_enough_images_do_not_complain(labels):
    assert "cannot resolve" not in decide(Gate(max_drop=0.01), labels, labels, labels).reason


# -- metric, figures, what a failure does


def test_the_gates_own_metric_goes_before_the_tasks():
    labels = np.repeat([0, 1], [990, 10])
    after = np.zeros(1000, np.int64)  # the rare class is never found again: 1 point of accuracy, 50 of balanced
    assert decide(Gate(max_drop=0.05), labels, labels, after).verdict == "kept"
    found = decide(Gate(max_drop=0.05, metric="balanced_accuracy"), labels, labels, after)
    assert found.verdict == "reverted"
    assert found.change.change == -0.5
    assert found.reason.startswith("balanced_accuracy changed by -50.00 points")


@pytest.mark.parametrize(("on_fail", "verdict"), [("revert", "reverted"), ("stop", "failed")])
def test_a_failed_gate_reverts_or_ends_the_run(labels, on_fail, verdict):
    assert decide(Gate(on_fail=on_fail), labels, labels, spoiled(labels, 100)).verdict == verdict


def test_a_figure_above_its_limit_fails_whatever_the_metric_does(labels):
    gate = Gate(at_most={"latency_ms": 2.0, "file_bytes": 100.0})
    figures = {"latency_ms": ms(2.25), "file_bytes": Measurement(value=90, unit="bytes", origin="counted")}
    found = decide(gate, labels, labels, labels, figures=figures)
    assert found.verdict == "reverted"
    assert found.reason.startswith("latency_ms is 2.25 ms, more than 2; accuracy changed by +0.00")
    assert decide(gate, labels, labels, labels, figures={**figures, "latency_ms": ms(2.0)}).verdict == "kept"


def test_a_limit_on_a_figure_that_nobody_knows_fails_instead_of_passing_unseen(labels):
    found = decide(Gate(at_most={"latency_ms": 2.0}), labels, labels, labels, figures={})
    assert found.verdict == "reverted"
    assert found.reason.startswith("latency_ms is not known")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": -0.01}, "max_drop must lie in"),
        ({"max_drop": 1.0}, "max_drop must lie in"),
        ({"max_drop": float("nan")}, "max_drop must lie in"),
        ({"level": 0.4}, "level must lie in"),
        ({"level": 1.0}, "level must lie in"),
        ({"at_most": {"latncy_ms": 1.0}}, "at_most holds 'latncy_ms', no figure of a file: did you mean 'latency_ms'"),
        ({"at_most": {"metric": 1.0}}, "known: " + ", ".join(sorted(FIGURES))),
        ({"at_most": {"macs": 0.0}}, "at_most.macs must be above 0"),
    ],
    ids=str,
)
def test_a_gate_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Gate(**options)
