"""The few-shot method: a linear model of operator times under a physical prior, averaged over its settings.

The latency of a network is a sum of operator times, plus what no sum explains, plus noise with outliers. The prior over
operator times comes from imaginary devices (`population`), measured devices add their own shapes to it, and every
family of operators may deviate. How strong each part is, which lowering the runtime follows and how noisy the clock is
are not selected but averaged by their evidence (`student_process`), in which the leave-one-out errors of every setting
are implicit: the evidence is the product of one-step-ahead densities over the target's own samples.

Ideas this draws on, and the difference:
    * Additive operator tables (ProxylessNAS, Cai et al. 2019, arXiv:1812.00332): there every operator is measured; here
      20 whole networks update a prior over all of them.
    * Proxy devices (OneProxy, Lu et al. 2021, arXiv:2111.01203) and meta-learned predictors (HELP, Lee et al. 2021,
      arXiv:2106.08630; NASFLAT, Akhauri and Abdelfattah 2024, arXiv:2403.02446): other devices enter as one linear
      term among others, so an unlike set of devices cannot hurt much; nothing is trained by gradient descent.
    * Jackknife intervals (Barber et al. 2021, arXiv:1905.02928): leave-one-out errors rescale the predicted spread
      instead of being used as they are (`forecast`).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.forecast import Forecast, spread_correction
from latency_models.transfer.operator_prior import View
from latency_models.transfer.operators import IntArray
from latency_models.transfer.student_process import LeftOut, Posterior, fit_posterior, leave_one_out

LEAST_SAMPLES = 3
_SMALLEST_MEAN = 1e-3  # of the median latency: a sum of operator times is positive, its estimate need not be


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """Inputs for `n` networks.

    Attributes:
        views: One for each lowering that a device may follow.
        context: `n x p` features for what no sum of operators explains, mean square row length about 1.
        sources: `n x S` relative latencies minus one on devices whose models are known, over the root of S; S may
            be 0.
    """

    views: tuple[View, ...]
    context: Array
    sources: Array

    def __len__(self) -> int:
        return len(self.context)


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotOptions:
    """The grid of settings that is averaged over; variances are relative to the squared median latency.

    Attributes:
        base_variance: Of the overall level and of the average imaginary device's shape; large means free.
        physical_variance: Of deviations along the directions in which imaginary devices differ (1 is as drawn).
        additive_variance: Of each operator family's private deviation.
        context_variance: Of the part that is not additive.
        source_variance: Of the shapes of measured devices (1 is as measured).
        noise_variance: Squared noise scales.
        degrees_of_freedom: Of the Student-t noise.
        smallest_relative_noise: Noise is proportional to latency, but not below this share of the median.
        survivors: Settings that get the full number of iterations.
    """

    base_variance: float = 10.0
    physical_variance: tuple[float, ...] = (0.03, 0.3, 3.0)
    additive_variance: tuple[float, ...] = (1e-2, 1e-1)
    context_variance: tuple[float, ...] = (1e-4,)
    source_variance: tuple[float, ...] = (0.0, 0.03, 0.3)
    noise_variance: tuple[float, ...] = tuple(float(10.0**e) for e in np.arange(-7.0, -1.4, 0.5))
    degrees_of_freedom: float = 4.0
    smallest_relative_noise: float = 0.2
    survivors: int = 96

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FewShotFit:
    """The method fitted to one device.

    Attributes:
        options: What it was fitted with.
        samples: Features of the `n` measured networks.
        lowering: `G` indices of the lowering of each kept setting.
        variances: `G x 5` prior variances: base, physical, additive, context, source.
        posterior: Solved settings, in units of `median_ms` and of the noise weights.
        noise_weight: `n` noise scales of the measurements relative to the median network.
        median_ms: Median measured latency.
        left_out: Leave-one-out errors, in units of `median_ms` times `noise_weight`.
        correction: Factor from claimed to calibrated spreads.
    """

    options: FewShotOptions
    samples: Features
    lowering: IntArray
    variances: Array
    posterior: Posterior
    noise_weight: Array
    median_ms: float
    left_out: LeftOut
    correction: float

    @property
    def left_out_ms(self) -> Array:
        """`n` measurements minus their leave-one-out predictions."""
        return self.left_out.residual * self.noise_weight * self.median_ms


def take(features: Features, index: IntArray | slice) -> Features:
    """Return the rows `index`."""
    views = tuple(
        View(mean=view.mean[index], directions=view.directions[index], additive=view.additive[index])
        for view in features.views
    )
    return Features(views=views, context=features.context[index], sources=features.sources[index])


def fit_device(samples: Features, latency_ms: Array, options: FewShotOptions | None = None) -> FewShotFit:
    """Fit a device from the networks measured on it.

    Args:
        samples: Features of `n` measured networks; 10 to 20 are sensible.
        latency_ms: `n` positive measurements.
        options: The settings.

    Raises:
        ValueError: Fewer than 3 samples, unequal lengths, or a latency that is not positive and finite.
    """
    options = options or FewShotOptions()
    if len(samples) < LEAST_SAMPLES:
        raise ValueError(f"{len(samples)} measured networks; at least {LEAST_SAMPLES} are needed, 10 to 20 are better")
    if latency_ms.shape != (len(samples),):
        raise ValueError(f"{latency_ms.shape=} for {len(samples)} networks")
    if not (np.isfinite(latency_ms) & (latency_ms > 0)).all():
        raise ValueError("latencies must be positive and finite; drop networks that failed to run")
    median = float(np.median(latency_ms))
    weight = np.maximum(latency_ms / median, options.smallest_relative_noise)
    lowering, variances, noise = _grid(len(samples.views), samples.sources.shape[1] > 0, options)
    products = [_products(samples, samples, number) for number in range(len(samples.views))]
    covariance = np.stack(
        [np.tensordot(row, products[number], axes=1) for number, row in zip(lowering, variances, strict=True)]
    )
    target = (latency_ms / median - 1.0) / weight
    nu = options.degrees_of_freedom
    posterior = fit_posterior(
        covariance / np.outer(weight, weight), noise, target, degrees_of_freedom=nu, survivors=options.survivors
    )
    left_out = leave_one_out(posterior, target, degrees_of_freedom=nu)
    return FewShotFit(
        options=options,
        samples=samples,
        lowering=lowering[posterior.setting],
        variances=variances[posterior.setting],
        posterior=posterior,
        noise_weight=weight,
        median_ms=median,
        left_out=left_out,
        correction=spread_correction(left_out),
    )


def forecast(model: FewShotFit, networks: Features) -> Forecast:
    """Return the forecast of `n` networks; the mean is linear in the features, the spread includes noise."""
    posterior = model.posterior
    first, second = np.zeros(len(networks)), np.zeros(len(networks))
    for lowering in np.unique(model.lowering):
        products = _products(networks, model.samples, int(lowering))
        squares = np.stack([np.einsum("ij,ij->i", block, block) for block in _blocks(networks, int(lowering))])
        for g in np.flatnonzero(model.lowering == lowering):
            cross = np.tensordot(model.variances[g], products, axes=1) / model.noise_weight
            mean = cross @ posterior.dual[g]
            explained = np.einsum("ij,ij->i", cross @ posterior.precision[g], cross)
            variance = np.maximum(model.variances[g] @ squares - explained, 0.0)
            first += posterior.weight[g] * mean
            second += posterior.weight[g] * (variance + mean**2)
    relative_noise = np.maximum(1.0 + first, model.options.smallest_relative_noise)
    noise = float(posterior.weight @ posterior.noise_variance) * relative_noise**2
    spread = np.sqrt(np.maximum(second - first**2, 0.0) + noise)
    return Forecast(
        mean_ms=np.maximum(1.0 + first, _SMALLEST_MEAN) * model.median_ms,
        spread_ms=spread * model.correction * model.median_ms,
    )


def _grid(num_views: int, has_sources: bool, o: FewShotOptions) -> tuple[IntArray, Array, Array]:
    """Return every setting: lowering `G`, variances `G x 5`, noise `G`."""
    axes: Sequence[Sequence[float]] = (
        range(num_views),
        o.physical_variance,
        o.additive_variance,
        o.context_variance,
        o.source_variance if has_sources else (0.0,),
        o.noise_variance,
    )
    rows = np.asarray(list(itertools.product(*axes)), dtype=np.float64)
    base = np.full((len(rows), 1), o.base_variance)
    return rows[:, 0].astype(np.int64), np.hstack([base, rows[:, 1:5]]), rows[:, 5]


def _products(left: Features, right: Features, lowering: int) -> Array:
    """Return inner products between two sets of networks for each block of features, `5 x n x m`."""
    pairs = zip(_blocks(left, lowering), _blocks(right, lowering), strict=True)
    return np.stack([ours @ theirs.T for ours, theirs in pairs])


def _blocks(features: Features, lowering: int) -> tuple[Array, ...]:
    """Return the feature blocks in the order of `FewShotFit.variances`."""
    view = features.views[lowering]
    base = np.hstack([np.ones((len(features), 1)), view.mean])
    return base, view.directions, view.additive, features.context, features.sources
