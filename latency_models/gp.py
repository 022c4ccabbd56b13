"""A Gaussian process on log latency, for devices whose operators interact."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from latency_models.additive import check_samples
from latency_models.compact import Standardization, compact_features, standardization
from latency_models.device import Device
from latency_models.left_out import left_out_parts
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Array, Prediction, Predictor, Sample
from latency_models.ridge_compact import check_schema
from latency_models.roofline import Roofline, RooflineLatency
from latency_models.timed_range import TimedRange, timed_range
from search_spaces.workload import Workload

SCHEMA = 1
_ROOFLINE = RooflineLatency(model=Roofline(), factor=1.0, left_out=np.empty(0))

Setting = tuple[float, float, float, float]
"""Variance of the linear part, variance and length of the smooth part, and variance of the noise."""


@LATENCY_MODELS.register("gp")
@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianProcess:
    """A linear and a squared-exponential kernel on compact features, settings chosen by marginal likelihood.

    Intervals are the process's own standard deviations, scaled by the errors that fits without a part of the samples
    made, which choose their settings anew: a process chosen by ten samples is too sure of itself.

    Attributes:
        linear: Candidate variances of the linear part, in squared log latency.
        smooth: Candidate variances of the smooth part.
        lengths: Candidate length scales of the smooth part, in standard deviations of a feature.
        noise: Candidate variances of the noise.
        folds: Parts of the samples that are left out in turn.
        min_samples: Fewest networks to fit from.
    """

    linear: tuple[float, ...] = (0.1, 1.0, 10.0)
    smooth: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0)
    lengths: tuple[float, ...] = (1.0, 3.0)
    noise: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    folds: int = 10
    min_samples: int = 8

    def fit(self, device: Device, samples: Sequence[Sample]) -> "GaussianProcessLatency":
        """Return the fitted predictor; raises MeasurementError for too few samples or samples of several origins."""
        check_samples(device, samples, least=self.min_samples)
        rows = [_features(sample.workload) for sample in samples]
        standardized = standardization(rows)
        inputs = standardized(rows)
        target = np.log([sample.latency_ms for sample in samples])
        left_out, spread = np.empty(len(target)), np.empty(len(target))
        for rest, part in left_out_parts(len(target), self.folds):
            process = _process(inputs[rest], target[rest], self._setting(inputs[rest], target[rest]))
            means, spread[part] = process.at(inputs[part])
            left_out[part] = target[part] - means
        return GaussianProcessLatency(
            standardization=standardized,
            process=_process(inputs, target, self._setting(inputs, target)),
            left_out=np.expm1(left_out),
            left_out_spread=spread,
            timed=timed_range(samples),
        )

    def _setting(self, inputs: Array, target: Array) -> Setting:
        """Return the setting with the greatest marginal likelihood."""
        grid = itertools.product(self.linear, self.smooth, self.lengths, self.noise)
        return max(grid, key=lambda setting: _log_likelihood(inputs, target - target.mean(), setting))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Process:
    """One setting, solved.

    Attributes:
        inputs: `m x p` standardized features of the samples.
        target: `m` log latencies.
        setting: The variances.
        precision: `m x m` inverse covariance of the samples.
    """

    inputs: Array
    target: Array
    setting: Setting
    precision: Array

    def at(self, inputs: Array) -> tuple[Array, Array]:
        """Return `n` means and standard deviations of log latency, noise included."""
        linear, smooth, _, noise = self.setting
        cross = _kernel(inputs, self.inputs, self.setting)
        center = float(self.target.mean())
        means = center + cross @ (self.precision @ (self.target - center))
        prior = linear * (inputs**2).sum(axis=1) / max(inputs.shape[1], 1) + smooth
        latent = prior - np.einsum("ij,ij->i", cross @ self.precision, cross)
        return means, np.sqrt(np.maximum(latent, 0.0) + noise)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GaussianProcessLatency:
    """A fitted process.

    Attributes:
        standardization: Of the features.
        process: The process.
        left_out: Relative error, (true - predicted) / predicted, of every sample by a fit without its part.
        left_out_spread: Standard deviation of log latency that was claimed for each of them.
        timed: What the samples cover.
    """

    standardization: Standardization
    process: Process
    left_out: Array
    left_out_spread: Array
    timed: TimedRange

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies; networks far from every sample get wider intervals."""
        logs, spread = self.process.at(self.standardization([_features(workload) for workload in workloads]))
        means = np.exp(logs)
        residuals = np.sort(self.left_out / self.left_out_spread)
        return Prediction(means, spread, residuals, self.timed.holds(workloads, means))

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no sample held."""
        return self.timed.unseen(workload)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "type": "gp",
            "schema": SCHEMA,
            "standardization": self.standardization.to_dict(),
            "inputs": self.process.inputs.tolist(),
            "target": self.process.target.tolist(),
            "setting": list(self.process.setting),
            "left_out": self.left_out.tolist(),
            "left_out_spread": self.left_out_spread.tolist(),
            "timed": self.timed.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "GaussianProcessLatency":  # Any: JSON values
        """Read the JSON form back; raises MeasurementError for another schema."""
        check_schema(record, SCHEMA)
        arrays = {
            name: np.asarray(record[name], dtype=np.float64)
            for name in ("inputs", "target", "left_out", "left_out_spread")
        }
        linear, smooth, length, noise = map(float, record["setting"])
        return cls(
            standardization=Standardization.from_dict(record["standardization"]),
            process=_process(arrays["inputs"], arrays["target"], (linear, smooth, length, noise)),
            left_out=arrays["left_out"],
            left_out_spread=arrays["left_out_spread"],
            timed=TimedRange.from_dict(record["timed"]),
        )


def _features(workload: Workload) -> dict[str, float]:
    """Return compact features and the log of a roofline, which already knows that small operators are slow."""
    known = float(_ROOFLINE.predict([workload]).mean_ms[0])
    return {**compact_features(workload), "log.roofline": math.log(known)}


def _process(inputs: Array, target: Array, setting: Setting) -> Process:
    covariance = _kernel(inputs, inputs, setting) + setting[3] * np.eye(len(target))
    precision: Array = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    return Process(inputs=inputs, target=target, setting=setting, precision=precision)


def _kernel(left: Array, right: Array, setting: Setting) -> Array:
    linear, smooth, length, _ = setting
    width = max(left.shape[1], 1)
    products = left @ right.T
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * products
    return np.asarray(linear * products / width + smooth * np.exp(-0.5 * squares / (width * length**2)))


def _log_likelihood(inputs: Array, centered: Array, setting: Setting) -> float:
    covariance = _kernel(inputs, inputs, setting) + setting[3] * np.eye(len(centered))
    factor = scipy.linalg.cholesky(covariance, lower=True)
    solved = scipy.linalg.solve_triangular(factor, centered, lower=True)
    return float(-0.5 * solved @ solved - np.log(np.diag(factor)).sum())


def _read(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    return GaussianProcessLatency.from_dict(record)


PREDICTORS["gp"] = _read
