"""The prior over operator times as inputs of a linear model.

Evaluating all imaginary devices on the operators of reference networks gives the mean and the covariance of a
Gaussian prior over operator times. A network's inputs are then sums over its operators: the time of the average
imaginary device, the coordinates along which imaginary devices differ, and the time spent in each family of
operators, through which a real device may leave every imaginary one.
"""

from dataclasses import dataclass, replace

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.operators import Lowering, OperatorTable
from latency_models.transfer.population import Population, Scales, operator_times, scales_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OperatorPrior:
    """Prior over the times of operators on an unknown device, for one lowering.

    Times are relative: every imaginary device takes 1 for the mean reference network.

    Attributes:
        population: The imaginary devices.
        scales: Of the reference operators.
        level: `S` times of the mean reference network on each imaginary device, before that normalization.
        rotation: `S x k` basis of the directions in which imaginary devices differ, strongest first.
        families: Families of the reference operators; others have no private deviation.
        center: `1 + k + f` inputs of the mean reference network.
    """

    population: Population
    scales: Scales
    level: Array
    rotation: Array
    families: tuple[str, ...]
    center: Array

    def rows(self, operators: OperatorTable) -> Array:
        """Return `U x (1 + k + f)` inputs that one execution of each operator adds."""
        relative = operator_times(operators, self.scales, self.population) / self.level
        mean = relative.mean(axis=1, keepdims=True)
        deviation = (relative - mean) / np.sqrt(len(self.level))
        number = {family: index for index, family in enumerate(self.families)}
        additive = np.zeros((len(operators), len(self.families)))
        known = [index for index, family in enumerate(operators.family) if family in number]
        additive[known, [number[operators.family[index]] for index in known]] = np.sqrt(
            (relative[known] ** 2).mean(axis=1)
        )
        return np.hstack([mean, deviation @ self.rotation, additive])

    def view(self, totals: Array) -> "View":
        """Return `n` networks from the sums of their operators' rows, `n x (1 + k + f)`."""
        split = 1 + self.rotation.shape[1]
        centered = totals - self.center
        return View(mean=centered[:, :1], directions=centered[:, 1:split], additive=centered[:, split:])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """Networks seen through one lowering: inputs of the linear model.

    Attributes:
        mean: `n x 1` predicted relative latency minus one of the average imaginary device.
        directions: `n x k` coordinates along the directions in which imaginary devices differ.
        additive: `n x f` time of each operator family, for deviations from every imaginary device.
    """

    mean: Array
    directions: Array
    additive: Array


def operator_prior(lowering: Lowering, population: Population, *, kept_variance: float = 1.0) -> OperatorPrior:
    """Return the prior with the networks of `lowering` as reference.

    Args:
        lowering: Reference networks.
        population: The imaginary devices.
        kept_variance: Share of the variance over reference networks that the kept directions explain. Below 1 only
            for reference networks that hold everything that will ever be predicted; 1 keeps every direction.
    """
    scales = scales_of(lowering.operators)
    times = operator_times(lowering.operators, scales, population)
    mean_counts = lowering.counts.mean(axis=0)
    level = mean_counts @ times
    relative = times / level
    deviation = (relative - relative.mean(axis=1, keepdims=True)) / np.sqrt(times.shape[1])
    prior = OperatorPrior(
        population=population,
        scales=scales,
        level=level,
        rotation=_rotation(lowering.counts - mean_counts, deviation, kept_variance),
        families=tuple(sorted(set(lowering.operators.family))),
        center=np.zeros(0),
    )
    return replace(prior, center=mean_counts @ prior.rows(lowering.operators))


def _rotation(centered_counts: Array, deviation: Array, kept_variance: float) -> Array:
    """Return `S x k` directions ordered by what they explain on the networks, so rare or tiny operators do not count.

    Args:
        centered_counts: `n x U`.
        deviation: `U x S` differences of the imaginary devices from their mean.
        kept_variance: Share to explain.
    """
    if kept_variance >= 1.0:
        return np.eye(deviation.shape[1])
    joint = centered_counts @ deviation
    values, vectors = np.linalg.eigh(joint.T @ joint)
    share = np.cumsum(values[::-1]) / values.sum()
    return np.asarray(vectors[:, ::-1][:, : int(np.searchsorted(share, kept_variance)) + 1])
