"""Forecasts with intervals from claimed spreads and leave-one-out errors.

A spread that a model claims is only as good as its prior, so it is rescaled by what happened on the target itself: the
mean absolute leave-one-out error divided by the spread claimed for it. The mean over all measurements, not a quantile
of 20 numbers, decides: one outlier cannot widen every interval, and the width varies less from sample to sample.

Related: normalized (locally weighted) conformal regression, Papadopoulos, Gammerman and Vovk 2008, and the jackknife of
Barber et al. 2021, arXiv:1905.02928. Both take an empirical quantile and guarantee a level; this takes a mean and the
shape of the noise distribution, and guarantees nothing beyond the coverage measured in the benchmark.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln
from scipy.stats import t as student_t

from latency_models.prediction import Array, Prediction
from latency_models.transfer.operators import BoolArray
from latency_models.transfer.student_process import LeftOut

PREDICTIVE_DEGREES = 10.0
"""Degrees of freedom of what is predicted: a nearly normal error of the model plus noise of 4 degrees.

Chosen with the intervals of all pools of `examples/benchmarks/latency_transfer.py` in view. On samples that the
benchmark does not draw (seeds 5 to 11; mean interval score, coverage): 4 degrees 0.2133, 89.6 %; 10 degrees 0.2131,
89.1 %; normal 0.2130, 88.7 %. Ten lies between the two.
"""

_REFIT_SAMPLES = 1.5
"""Errors of real fits without one of n samples exceed the closed-form ones by about sqrt(1 + 1.5 / n).

Measured on 26 devices of those pools: 8 % at n = 10, 4 % at n = 20 and n = 40.
"""

_QUANTILES = 999
"""Points by which the noise distribution is handed over as residuals of a `Prediction`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """Predicted latencies of `n` networks.

    Attributes:
        mean_ms: `n` expected latencies, positive.
        spread_ms: `n` calibrated scales of the predictive Student-t, measurement noise included.
    """

    mean_ms: Array
    spread_ms: Array

    def quantile_ms(self, level: float) -> Array:
        """Return `n` quantiles, not below zero; `level` lies between 0 and 1.

        Example:
            >>> forecast = Forecast(mean_ms=np.array([10.0]), spread_ms=np.array([1.0]))
            >>> [round(float(forecast.quantile_ms(level)[0]), 2) for level in (0.05, 0.5, 0.95)]
            [8.19, 10.0, 11.81]
        """
        unit = float(student_t.ppf(level, PREDICTIVE_DEGREES))
        return np.asarray(np.maximum(self.mean_ms + unit * self.spread_ms, 0.0))

    def probability_below(self, budget_ms: float) -> Array:
        """Return `n` probabilities that a measurement is at most `budget_ms`."""
        return np.asarray(student_t.cdf((budget_ms - self.mean_ms) / self.spread_ms, PREDICTIVE_DEGREES))

    def prediction(self, in_range: BoolArray) -> Prediction:
        """Return it in the form of every latency model, whose residuals are here quantiles of the Student-t."""
        levels = np.arange(1, _QUANTILES + 1) / (_QUANTILES + 1)
        residuals = np.asarray(student_t.ppf(levels, PREDICTIVE_DEGREES))
        return Prediction(self.mean_ms, self.spread_ms / self.mean_ms, residuals, in_range)


def spread_correction(left_out: LeftOut) -> float:
    """Return the factor by which claimed spreads must be multiplied to match the leave-one-out errors."""
    claimed = np.sqrt(left_out.latent_variance + left_out.noise_variance)
    observed = float(np.mean(np.abs(left_out.residual) / claimed))
    nu = PREDICTIVE_DEGREES
    expected = 2.0 * np.sqrt(nu / np.pi) * np.exp(gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu)) / (nu - 1.0)
    return observed / float(expected) * refit_factor(len(left_out.residual))


def refit_factor(num_samples: int) -> float:
    """Return by how much closed-form leave-one-out errors understate those of real refits."""
    return float(np.sqrt(1.0 + _REFIT_SAMPLES / num_samples))
