"""Gaussian processes with Student-t noise, many settings of the variances at once.

With 10 to 100 measurements the variances cannot be identified, so nothing is selected: every setting of a grid is
fitted and the fits are averaged by their evidence. Timings have rare large outliers, so the noise is Student-t, as a
scale mixture of Gaussians fitted by variational EM (Tipping and Lawrence 2005, "Variational inference for Student-t
models", Neurocomputing 69). The leave-one-out formulas are those of Sundararajan and Keerthi (2001, Neural Computation
13(5)); leaving one measurement out also re-weights the settings by importance sampling (Gelfand, Dey and Chang 1992).

Difference from the papers: all settings are solved as one batch of small matrices, and settings without a chance are
dropped after two iterations.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln

from latency_models.prediction import Array
from latency_models.transfer.operators import IntArray

_JITTER = 1e-9
_FIRST_ITERATIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """Evidence-weighted settings that survived, each with its solved system.

    Attributes:
        setting: `G` indices into the grid that was passed in.
        weight: `G` posterior probabilities, sum 1.
        dual: `G x n` coefficients; the latent mean at a point is its prior covariance with the data times these.
        precision: `G x n x n` inverse covariances of the data, noise included.
        noise_variance: `G` squared scales of the Student-t noise.
        reliability: `G x n` weight of each measurement, about 1, near 0 for an outlier.
    """

    setting: IntArray
    weight: Array
    dual: Array
    precision: Array
    noise_variance: Array
    reliability: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeftOut:
    """What the fit says about each measurement when that measurement is left out, averaged over settings.

    Attributes:
        residual: `n` measurements minus their leave-one-out means.
        latent_variance: `n` variances of the noise-free value, disagreement of the settings included.
        noise_variance: `n` squared noise scales.
    """

    residual: Array
    latent_variance: Array
    noise_variance: Array


def fit_posterior(
    covariance: Array,
    noise_variance: Array,
    target: Array,
    *,
    degrees_of_freedom: float,
    iterations: int = 8,
    survivors: int = 96,
    smallest_weight: float = 1e-3,
) -> Posterior:
    """Fit every setting and keep those with a share of the evidence.

    Args:
        covariance: `G x n x n` prior covariances of the noise-free targets.
        noise_variance: `G` squared noise scales.
        target: `n` measured values, about zero mean.
        degrees_of_freedom: Of the Student-t noise.
        iterations: Variational iterations of the survivors, at least 3.
        survivors: How many settings stay after two iterations.
        smallest_weight: Settings below this share of the greatest weight are dropped at the end.
    """
    nu = degrees_of_freedom
    setting = np.arange(len(covariance))
    reliability = np.ones((len(covariance), len(target)))
    evidence, reliability = _iterate(covariance, noise_variance, target, reliability, nu, _FIRST_ITERATIONS)
    if len(setting) > survivors:
        setting = np.sort(np.argpartition(-evidence, survivors)[:survivors])
    covariance, noise_variance, reliability = covariance[setting], noise_variance[setting], reliability[setting]
    evidence, reliability = _iterate(
        covariance, noise_variance, target, reliability, nu, iterations - _FIRST_ITERATIONS
    )
    weight = np.exp(evidence - evidence.max())
    keep = weight >= smallest_weight
    total = _with_noise(covariance[keep], noise_variance[keep], reliability[keep])
    precision: Array = np.asarray(np.linalg.inv(total), dtype=np.float64)
    return Posterior(
        setting=setting[keep],
        weight=weight[keep] / weight[keep].sum(),
        dual=precision @ target,
        precision=precision,
        noise_variance=noise_variance[keep],
        reliability=reliability[keep],
    )


def leave_one_out(posterior: Posterior, target: Array, *, degrees_of_freedom: float) -> LeftOut:
    """Leave each measurement out in closed form, without a new fit."""
    diagonal = np.einsum("gii->gi", posterior.precision)
    noise = posterior.noise_variance[:, None]
    residual = posterior.dual / diagonal
    latent = np.maximum(1.0 / diagonal - noise / posterior.reliability, 0.0)
    log_weight = np.log(posterior.weight)[:, None] - _student_log_density(residual, latent + noise, degrees_of_freedom)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = (weight * residual).sum(axis=0)
    return LeftOut(
        residual=mean,
        latent_variance=(weight * (latent + (residual - mean) ** 2)).sum(axis=0),
        noise_variance=(weight * noise).sum(axis=0),
    )


def _with_noise(covariance: Array, noise_variance: Array, reliability: Array) -> Array:
    """Return covariances with each measurement's noise on the diagonal."""
    total = covariance.copy()
    step = total.shape[-1] + 1
    total.reshape(len(total), -1)[:, ::step] += noise_variance[:, None] / reliability + _JITTER
    return total


def _iterate(
    covariance: Array, noise_variance: Array, target: Array, reliability: Array, nu: float, iterations: int
) -> tuple[Array, Array]:
    """Run variational EM; return the evidence bounds `G` and the reliabilities `G x n` they belong to."""
    scale = noise_variance[:, None]
    for _ in range(iterations - 1):
        precision = np.linalg.inv(_with_noise(covariance, noise_variance, reliability))
        noise = scale / reliability
        error = (noise * (precision @ target)) ** 2 + noise - noise**2 * np.einsum("gii->gi", precision)
        reliability = np.maximum((nu + 1.0) / (nu + error / scale), 1e-4)
    total = _with_noise(covariance, noise_variance, reliability)
    fit = np.linalg.inv(total) @ target @ target
    evidence = -0.5 * fit - 0.5 * np.linalg.slogdet(total)[1] + _noise_terms(reliability, nu)
    return evidence, reliability


def _noise_terms(reliability: Array, nu: float) -> Array:
    """Return evidence terms of the noise scales: their Gamma posterior against its prior, `G` values."""
    shape, half = 0.5 * (nu + 1.0), 0.5 * nu
    rate = shape / reliability
    expected_log = digamma(shape) - np.log(rate)
    divergence = (
        (shape - half) * digamma(shape)
        - gammaln(shape)
        + gammaln(half)
        + half * (np.log(rate) - np.log(half))
        + shape * (half - rate) / rate
    )
    return np.asarray((0.5 * (expected_log - np.log(reliability)) - divergence).sum(axis=1))


def _student_log_density(residual: Array, variance: Array, nu: float) -> Array:
    """Return the log density of a Student-t with squared scale `variance`, up to a constant in `nu`."""
    return np.asarray(-0.5 * np.log(variance) - 0.5 * (nu + 1.0) * np.log1p(residual**2 / (nu * variance)))
