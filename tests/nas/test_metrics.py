import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from nas.metrics import confusion, interval, paired_change, recalls, score

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")

REFERENCE = {
    "accuracy": sklearn_metrics.accuracy_score,
    "balanced_accuracy": sklearn_metrics.balanced_accuracy_score,
    "macro_f1": lambda labels, found: sklearn_metrics.f1_score(labels, found, average="macro"),
}


def noisy(rng, labels: np.ndarray, share: float, num_classes: int) -> np.ndarray:
    """Return predictions that are random for a share of the images."""
    return np.where(rng.random(len(labels)) < share, rng.integers(0, num_classes, len(labels)), labels)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_metrics_equal_scikit_learns_with_classes_missing_on_either_side(metric, pairs):
    labels, found = np.array(pairs).T
    wanted = REFERENCE[metric](labels, found)
    assert float(score(metric, confusion(labels, found, 6))) == pytest.approx(wanted, abs=1e-12)
    assert interval(labels, found, metric, seed=0, resamples=2).value == pytest.approx(wanted, abs=1e-12)


def test_confusion_and_recalls_equal_scikit_learns(rng):
    labels = rng.integers(0, 4, 200)
    found = noisy(rng, labels, 0.5, 4)
    matrix = confusion(labels, found, 5)
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(labels, found, labels=range(5)))
    wanted = sklearn_metrics.recall_score(labels, found, average=None)
    assert recalls(matrix)[:4] == pytest.approx(wanted)
    assert np.isnan(recalls(matrix)[4])


def test_score_takes_many_matrices_at_once(rng):
    matrices = rng.integers(0, 9, (3, 2, 4, 4))
    for metric in METRICS:
        values = score(metric, matrices)
        assert values.shape == (3, 2)
        assert values[1, 1] == score(metric, matrices[1, 1])


def test_a_class_that_is_only_predicted_counts_in_macro_f1_alone():
    labels, found = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    matrix = confusion(labels, found, 4)
    assert score("balanced_accuracy", matrix) == pytest.approx((0.5 + 1) / 2)
    assert score("macro_f1", matrix) == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (1, 1), (250, 269), (9_100, 10_000)])
def test_accuracy_has_wilsons_interval(hits, n):
    labels = np.zeros(n, np.int64)
    found = np.r_[np.zeros(hits, np.int64), np.ones(n - hits, np.int64)]
    known = interval(labels, found, "accuracy", seed=0, level=0.9, source="validation split")
    wanted = binomtest(hits, n).proportion_ci(0.9, method="wilson")
    assert known.lower == pytest.approx(min(wanted.low, hits / n), abs=1e-12)
    assert known.upper == pytest.approx(max(wanted.high, hits / n), abs=1e-12)
    assert (known.unit, known.origin, known.source) == ("1", "measured", f"validation split, {n} images")


def naive(labels, before, after, metric, resamples, rng):
    """Draw image numbers, one resample at a time, and score with scikit-learn's definitions."""
    changes = []
    size = int(max(labels.max(), before.max(), after.max())) + 1
    for _ in range(resamples):
        drawn = rng.integers(0, len(labels), len(labels))
        one, other = (score(metric, confusion(labels[drawn], found[drawn], size)) for found in (before, after))
        changes.append(float(other - one))
    return np.quantile(changes, (0.05, 0.95))


@pytest.mark.parametrize("metric", METRICS)
def test_the_paired_interval_is_that_of_drawing_images(rng, metric):
    labels = rng.choice(4, 400, p=(0.5, 0.3, 0.15, 0.05))
    before = noisy(rng, labels, 0.3, 4)
    after = np.where(rng.random(400) < 0.1, noisy(rng, labels, 0.8, 4), before)
    known = paired_change(labels, before, after, metric, seed=1, resamples=4000)
    lower, upper = naive(labels, before, after, metric, 4000, rng)
    width = upper - lower
    # Two bootstraps of 4,000 differ in a percentile by about 2 % of the width.
    assert abs(known.lower - lower) < 0.08 * width
    assert abs(known.upper - upper) < 0.08 * width
    assert known.lower < known.change < known.upper


def test_the_interval_of_few_changed_images_is_exact():
    # 100 images, of which 2 become wrong: a resample loses Binomial(100, 0.02), whose 95th percentile is 5.
    labels = np.zeros(100, np.int64)
    after = np.r_[np.ones(2, np.int64), np.zeros(98, np.int64)]
    known = paired_change(labels, labels, after, "accuracy", seed=0, resamples=20_000)
    assert (known.before, known.after, known.n) == (1.0, 0.98, 100)
    assert known.change == pytest.approx(-0.02)
    assert known.lower == pytest.approx(-0.05)
    assert known.upper == pytest.approx(0.0)


def test_pairing_tells_apart_what_two_intervals_cannot(rng):
    labels = rng.integers(0, 10, 2_000)
    before = noisy(rng, labels, 0.3, 10)
    after = before.copy()
    after[:25] = (labels[:25] + 1) % 10
    change = paired_change(labels, before, after, "accuracy", seed=0)
    one, other = (interval(labels, found, "accuracy", seed=0) for found in (before, after))
    assert other.upper > one.lower
    assert change.upper < 0


def test_the_interval_holds_the_truth_as_often_as_it_says(rng):
    # Networks that lose exactly 3 points in the long run, on 400 images each time.
    held = 0
    for seed in range(300):
        labels = rng.integers(0, 5, 400)
        before = np.where(rng.random(400) < 0.2, (labels + 1) % 5, labels)
        draw = rng.random(400)
        worse = (before == labels) & (draw < 0.0625)  # 0.8 * 0.0625 = 5 points lost
        better = (before != labels) & (draw < 0.1)  # 0.2 * 0.1 = 2 points won
        after = np.where(worse, (labels + 2) % 5, np.where(better, labels, before))
        known = paired_change(labels, before, after, "accuracy", seed=seed, resamples=400)
        held += known.lower <= -0.03 <= known.upper
    # Binomial(300, 0.9) lies in 0.85 to 0.94 but once in 200.
    assert 0.85 <= held / 300 <= 0.94


def test_no_change_has_no_width_but_a_limit_of_resolution():
    labels = np.arange(300) % 3
    known = paired_change(labels, labels, labels, "accuracy", seed=0)
    assert known.lower == known.change == known.upper == 0
    # With probability 0.05 a change that strikes 1 % of images shows in none of 300.
    assert known.resolvable == pytest.approx(1 - 0.05 ** (1 / 300))
    assert 0.0095 < known.resolvable < 0.0105
    assert known.resolves(0.01)
    assert not known.resolves(0.005)
    assert known.allows(0.005)


def test_rare_classes_coarsen_the_resolution_of_balanced_metrics():
    labels = np.repeat(np.arange(2), (990, 10))
    even = paired_change(labels, labels, labels, "accuracy", seed=0).resolvable
    for metric in ("balanced_accuracy", "macro_f1"):
        assert paired_change(labels, labels, labels, metric, seed=0).resolvable > 10 * even


def test_a_gate_fails_when_the_lower_end_is_under_the_drop(rng):
    labels = rng.integers(0, 3, 1_000)
    after = labels.copy()
    after[:20] = (labels[:20] + 1) % 3
    known = paired_change(labels, labels, after, "accuracy", seed=0)
    assert -0.03 < known.lower < -0.02
    assert not known.allows(0.025)
    assert known.allows(0.03)
    assert "accuracy changed by -2.00 points, 90% interval [-2.80" in known.sentence(0.02)
    assert known.sentence(0.02).endswith("over 1000 images: beyond a drop of 2.00")
    assert known.sentence(0.001).endswith("; 1000 images cannot resolve less than 0.75 points")


@pytest.mark.parametrize("metric", METRICS)
def test_the_seed_decides_and_the_order_of_images_does_not(rng, metric):
    labels = rng.integers(0, 5, 500)
    before, after = noisy(rng, labels, 0.3, 5), noisy(rng, labels, 0.4, 5)
    first = paired_change(labels, before, after, metric, seed=3)
    turn = rng.permutation(500)
    assert paired_change(labels[turn], before[turn], after[turn], metric, seed=3) == first
    # Accuracy moves in steps of 1 / 500, so that some seeds agree.
    assert len({paired_change(labels, before, after, metric, seed=seed).lower for seed in range(8)}) > 1


def test_many_classes_and_images_fit_in_blocks(rng):
    labels = rng.integers(0, 500, 20_000)
    before, after = noisy(rng, labels, 0.5, 500), noisy(rng, labels, 0.5, 500)
    known = paired_change(labels, before, after, "macro_f1", seed=0, resamples=400)
    assert known.lower < known.change < known.upper
    assert known.upper - known.lower < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion(np.array([0]), np.array([0, 1]), 2), "equally many"),
        (lambda: confusion(np.array([], int), np.array([], int), 2), "at least one"),
        (lambda: confusion(np.array([0]), np.array([2]), 2), "predictions must lie in 0 to 1, got 2 to 2"),
        (lambda: confusion(np.array([-1]), np.array([0]), 2), "labels must lie in 0 to 1"),
        (
            lambda: score("f1", np.eye(2, dtype=int)),
            "metric must be accuracy, balanced_accuracy or macro_f1, got 'f1'",
        ),
        (
            lambda: paired_change(np.zeros(3, int), np.zeros(3, int), np.zeros(2, int), "accuracy", seed=0),
            "equally",
        ),
        (
            lambda: interval(np.zeros(3, int), np.zeros(3, int), "macro_f1", seed=0, level=1.0),
            "between 0 and 1",
        ),
    ],
    ids=["lengths", "empty", "prediction", "label", "metric", "paired-lengths", "level"],
)
def test_arguments_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
