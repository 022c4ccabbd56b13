"""Ridge regression of log latency on compact features: the floor that every other latency model must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from latency_models.additive import check_samples
from latency_models.compact import Standardization, compact_features, standardization
from latency_models.device import Device
from latency_models.left_out import left_out_parts
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Array, Prediction, Predictor, Sample
from latency_models.timed_range import TimedRange, timed_range
from search_spaces.errors import MeasurementError
from search_spaces.workload import Workload

SCHEMA = 1


@LATENCY_MODELS.register("ridge_compact")
@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeCompact:
    """Ridge on counts of kernels, depth, and logs of MACs, elements and parameters, against log latency.

    The penalty is the one with the least squared leave-one-out error, in closed form (Golub, Heath and Wahba 1979);
    intervals come from fits without a part of the samples, which choose their penalty anew.

    Attributes:
        penalties: Candidates, as multiples of the mean squared length of a standardized feature column.
        folds: Parts of the samples that are left out in turn.
        min_samples: Fewest networks to fit from.
    """

    penalties: tuple[float, ...] = tuple(float(10.0**e) for e in np.arange(-4.0, 2.1, 0.5))
    folds: int = 20
    min_samples: int = 5

    def fit(self, device: Device, samples: Sequence[Sample]) -> "RidgeCompactLatency":
        """Return the fitted predictor; raises MeasurementError for too few samples or samples of several origins."""
        check_samples(device, samples, least=self.min_samples)
        rows = [compact_features(sample.workload) for sample in samples]
        standardized = standardization(rows)
        inputs = standardized(rows)
        target = np.log([sample.latency_ms for sample in samples])
        left_out = np.empty(len(target))
        for rest, part in left_out_parts(len(target), self.folds):
            fitted = self._weights(inputs[rest], target[rest])
            left_out[part] = target[part] - target[rest].mean() - (inputs[part] - inputs[rest].mean(axis=0)) @ fitted
        return RidgeCompactLatency(
            standardization=standardized,
            weights=self._weights(inputs, target),
            intercept=float(target.mean()),
            left_out=np.expm1(left_out),
            timed=timed_range(samples),
        )

    def _weights(self, inputs: Array, target: Array) -> Array:
        """Return the weights of the best penalty."""
        centered = inputs - inputs.mean(axis=0)
        fits = [_ridge(centered, target - target.mean(), penalty) for penalty in self.penalties]
        return min(fits, key=lambda fit: fit[1])[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RidgeCompactLatency:
    """A fitted ridge.

    Attributes:
        standardization: Of the compact features.
        weights: One for each feature.
        intercept: Mean log latency of the samples.
        left_out: Relative error, (true - predicted) / predicted, of every sample by a fit without its part.
        timed: What the samples cover.
    """

    standardization: Standardization
    weights: Array
    intercept: float
    left_out: Array
    timed: TimedRange

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies with one relative interval for all networks."""
        inputs = self.standardization([compact_features(workload) for workload in workloads])
        means = np.exp(self.intercept + inputs @ self.weights)
        return Prediction(means, np.ones(len(means)), np.sort(self.left_out), self.timed.holds(workloads, means))

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no sample held."""
        return self.timed.unseen(workload)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "type": "ridge_compact",
            "schema": SCHEMA,
            "standardization": self.standardization.to_dict(),
            "weights": self.weights.tolist(),
            "intercept": self.intercept,
            "left_out": self.left_out.tolist(),
            "timed": self.timed.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back; raises MeasurementError for another schema."""
        check_schema(record, SCHEMA)
        return cls(
            standardization=Standardization.from_dict(record["standardization"]),
            weights=np.asarray(record["weights"], dtype=np.float64),
            intercept=float(record["intercept"]),
            left_out=np.asarray(record["left_out"], dtype=np.float64),
            timed=TimedRange.from_dict(record["timed"]),
        )


def check_schema(record: Mapping[str, Any], schema: int) -> None:  # Any: JSON values
    """Raise MeasurementError unless a saved predictor has the schema that is read."""
    if record.get("schema") != schema:
        raise MeasurementError(
            f"this {record.get('type')} latency model has schema {record.get('schema')!r}, expected {schema}: "
            "fit the device again"
        )


def _ridge(inputs: Array, target: Array, penalty: float) -> tuple[Array, float]:
    """Return weights, and the mean squared leave-one-out error; both arguments are centered."""
    count = len(target)
    gram = inputs.T @ inputs + penalty * count * np.eye(inputs.shape[1])
    solved = np.linalg.solve(gram, inputs.T)
    weights = solved @ target
    leverage = np.einsum("ij,ji->i", inputs, solved) + 1.0 / count  # the intercept takes 1 / n and is not penalized
    errors = (target - inputs @ weights) / np.maximum(1.0 - leverage, 1e-6)
    return weights, float((errors**2).mean())


def _read(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    return RidgeCompactLatency.from_dict(record)


PREDICTORS["ridge_compact"] = _read
