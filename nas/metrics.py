"""The metrics that search, gates and report maximize, their intervals, and how far a network has changed.

Everything is computed from counts, as scikit-learn's functions of the same names compute it. Classes without
images: balanced accuracy is the mean recall of the classes that have some; macro-F1 leaves out those that are
neither present nor predicted, and counts a class that is only predicted as 0.

Intervals are for new images like these: they are right when images are independent. Where images come in
groups (burst frames) they are too narrow, and nothing here speaks of the spread between trainings.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.task import MetricName
from search_spaces.measurement import Measurement, Origin

Numbers = npt.NDArray[np.integer[Any]]
"""Labels or predictions: numbers of classes, `n`, any integer type."""

Shares = npt.NDArray[np.float64]

_BLOCK_CELLS = 4_000_000


def confusion(labels: Numbers, predictions: Numbers, num_classes: int) -> npt.NDArray[np.int64]:
    """Return the counts of images, `classes x classes`: true class by predicted class.

    Raises:
        ValueError: Labels and predictions are not of one length, or a number lies outside the classes.
    """
    _check(labels, predictions)
    for name, numbers in (("labels", labels), ("predictions", predictions)):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < num_classes:
            raise ValueError(f"{name} must lie in 0 to {num_classes - 1}, got {numbers.min()} to {numbers.max()}")
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def score(metric: MetricName, matrices: npt.NDArray[np.int64]) -> Shares:
    """Return the metric, a share, of confusion matrices `... x classes x classes`; shape `...`."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    return _score(metric, hits, matrices.sum(-1), matrices.sum(-2))


def recalls(matrix: npt.NDArray[np.int64]) -> Shares:
    """Return the share of every class's images that are found, `classes`; nan for a class without images."""
    actual = matrix.sum(1)
    shares = np.full(len(matrix), np.nan)
    np.divide(np.diagonal(matrix), actual, out=shares, where=actual > 0)
    return shares


def interval(
    labels: Numbers,
    predictions: Numbers,
    metric: MetricName,
    *,
    seed: int,
    level: float = 0.9,
    resamples: int = 2000,
    origin: Origin = "measured",
    source: str = "",
) -> Measurement:
    """Return a metric with its interval.

    For accuracy that of Wilson (1927), which holds for few images and for shares near 0 and 1; for the others
    the percentiles of a bootstrap over the images.

    Args:
        labels: True classes, `n`.
        predictions: Predicted classes, `n`.
        metric: Which.
        seed: Of the bootstrap.
        level: Probability of the two-sided interval.
        resamples: Of the bootstrap.
        origin: How the predictions were made, see `Measurement`.
        source: Which file and split they are of, in words; the number of images is added.
    """
    _check(labels, predictions)
    _check_level(level, resamples)
    triples, counts = np.unique(np.stack([labels, predictions, predictions]), axis=1, return_counts=True)
    value = float(_scores(metric, triples, counts[None])[0][0])
    if metric == "accuracy":
        lower, upper = _wilson(value, len(labels), level)
    else:
        values = _resampled(metric, triples, counts, resamples, seed)[0]
        lower, upper = np.quantile(values, ((1 - level) / 2, (1 + level) / 2)).tolist()
    return Measurement(
        value=value,
        unit="1",
        origin=origin,
        lower=min(lower, value),
        upper=max(upper, value),
        level=level,
        source=f"{source}, {len(labels)} images" if source else f"{len(labels)} images",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedChange:
    """How a metric changed between two networks on the same images.

    Attributes:
        metric: Which.
        before: Its value before.
        after: Its value after.
        lower: Lower end of the two-sided interval of the change at `level`.
        upper: Upper end of the same interval.
        level: Probability of that interval.
        n: Number of images.
        resolvable: Smallest change these images can tell from none, as a share: half the interval's width,
            but no less than the change that would still have shown in no image with probability `(1 - level)
            / 2`, which is about 3 / n for accuracy at level 0.9.
    """

    metric: MetricName
    before: float
    after: float
    lower: float
    upper: float
    level: float
    n: int
    resolvable: float

    @property
    def change(self) -> float:
        """After less before; negative when the metric fell."""
        return self.after - self.before

    def resolves(self, max_drop: float) -> bool:
        """Tell whether these images can tell a drop of `max_drop`, a share, from none."""
        return self.resolvable <= max_drop

    def allows(self, max_drop: float) -> bool:
        """Tell whether a gate passes: the lower end of the change's interval is not under `-max_drop`."""
        return self.lower >= -max_drop - 1e-12  # shares of n images meet a round limit up to rounding

    def sentence(self, max_drop: float) -> str:
        """Return the gate's reason: the change, its interval, the images, and what they cannot resolve."""
        verdict = "within" if self.allows(max_drop) else "beyond"
        text = (
            f"{self.metric} changed by {100 * self.change:+.2f} points, {self.level:.0%} interval "
            f"[{100 * self.lower:+.2f}, {100 * self.upper:+.2f}] over {self.n} images: {verdict} a drop of "
            f"{100 * max_drop:.2f}"
        )
        if self.resolves(max_drop):
            return text
        return f"{text}; {self.n} images cannot resolve less than {100 * self.resolvable:.2f} points"


def paired_change(
    labels: Numbers,
    before: Numbers,
    after: Numbers,
    metric: MetricName,
    *,
    seed: int,
    level: float = 0.9,
    resamples: int = 2000,
) -> PairedChange:
    """Return the change of a metric from `before` to `after`, with its paired-bootstrap interval.

    Images are drawn with replacement, each with both its predictions (Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, section 13.3, percentile interval). We draw how often every distinct triple
    of label and predictions occurs instead of drawing image numbers, which is the same distribution at less
    work. The interval is widened to hold the observed change, which in macro-F1 the percentiles can miss.

    Args:
        labels: True classes, `n`.
        before: Predictions before, `n`.
        after: Predictions after, `n`.
        metric: Which.
        seed: Of the draws; the same seed gives the same interval.
        level: Probability of the two-sided interval: at 0.9 its lower end is the 5th percentile.
        resamples: Number of draws.

    Raises:
        ValueError: The three are not of one length, or empty.
    """
    _check(labels, before)
    _check(labels, after)
    _check_level(level, resamples)
    triples, counts = np.unique(np.stack([labels, before, after]), axis=1, return_counts=True)
    first, second = (float(values[0]) for values in _scores(metric, triples, counts[None]))
    drawn_first, drawn_second = _resampled(metric, triples, counts, resamples, seed)
    tails = ((1 - level) / 2, (1 + level) / 2)
    lower, upper = np.quantile(drawn_second - drawn_first, tails).tolist()
    lower, upper = min(lower, second - first), max(upper, second - first)
    unseen = 1 - tails[0] ** (1 / _effective_images(metric, labels))
    return PairedChange(
        metric=metric,
        before=first,
        after=second,
        lower=lower,
        upper=upper,
        level=level,
        n=len(labels),
        resolvable=max((upper - lower) / 2, unseen),
    )


def _scores(metric: MetricName, triples: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> tuple[Shares, Shares]:
    """Return the metric of both predictions, one value for every row of counts.

    Args:
        metric: Which.
        triples: Label and two predictions, `3 x m`.
        counts: How many images have each, `resamples x m`.
    """
    labels, *predictions = np.unique(triples, return_inverse=True)[1].reshape(triples.shape)
    num_classes = int(max(labels.max(), *(found.max() for found in predictions))) + 1
    actual = _summed(counts, labels, num_classes)
    first, second = (
        _score(
            metric,
            _summed(counts * (labels == found), labels, num_classes),
            actual,
            _summed(counts, found, num_classes),
        )
        for found in predictions
    )
    return first, second


def _summed(counts: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """Return counts `resamples x m` added up by column number, `resamples x width`."""
    order = np.argsort(columns, kind="stable")
    present, starts = np.unique(columns[order], return_index=True)
    summed = np.zeros((len(counts), width), np.int64)
    summed[:, present] = np.add.reduceat(counts[:, order], starts, axis=1)
    return summed


def _score(
    metric: MetricName,
    hits: npt.NDArray[np.int64],
    actual: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
) -> Shares:
    """Return the metric from counts of every class, `... x classes`: found images, images, predictions."""
    if metric == "accuracy":
        return np.asarray(hits.sum(-1) / np.maximum(actual.sum(-1), 1))
    if metric == "balanced_accuracy":
        return _mean(hits / np.maximum(actual, 1), actual > 0)
    if metric == "macro_f1":
        return _mean(2 * hits / np.maximum(actual + predicted, 1), actual + predicted > 0)
    raise ValueError(f"metric must be accuracy, balanced_accuracy or macro_f1, got {metric!r}")


def _mean(shares: Shares, counted: npt.NDArray[np.bool_]) -> Shares:
    return np.asarray((shares * counted).sum(-1) / np.maximum(counted.sum(-1), 1))


def _resampled(
    metric: MetricName,
    triples: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    resamples: int,
    seed: int,
) -> tuple[Shares, Shares]:
    """Return the metric of both predictions in every resample."""
    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    block = max(1, _BLOCK_CELLS // len(counts))
    first, second = [], []
    for start in range(0, resamples, block):
        drawn = rng.multinomial(total, counts / total, min(block, resamples - start))
        one, other = _scores(metric, triples, drawn)
        first.append(one)
        second.append(other)
    return np.concatenate(first), np.concatenate(second)


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _effective_images(metric: MetricName, labels: Numbers) -> float:
    """Return how many images of equal weight tell as much: fewer than n when rare classes weigh as others."""
    if metric == "accuracy":
        return len(labels)
    sizes = np.unique(labels, return_counts=True)[1]
    return float(len(sizes) ** 2 / (1 / sizes).sum())


def _check(labels: Numbers, predictions: Numbers) -> None:
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"labels and predictions must be equally many numbers in a row, at least one, got {labels.shape} "
            f"and {predictions.shape}"
        )


def _check_level(level: float, resamples: int) -> None:
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 and resamples be positive, got {level=}, {resamples=}")
