"""What the timed networks of a device cover, and the refusal, in words, of what they do not.

A model extrapolates in silence; a network with a kernel that was never timed, or far outside the timed latencies, is
refused instead, with what to time next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from latency_models.features import segment_features
from latency_models.prediction import Array, Prediction, Predictor, Sample
from search_spaces.errors import MeasurementError
from search_spaces.workload import Workload

_LANES = 8  # groups that depend on the lanes are left out, so any number would do


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRange:
    """What samples cover.

    Attributes:
        kernels: Kernel kinds that occurred, such as "depthwise.k5".
        latency_ms: Least and greatest latency.
    """

    kernels: frozenset[str]
    latency_ms: tuple[float, float]

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no sample held, sorted."""
        return tuple(sorted(kernels_of(workload) - self.kernels))

    def holds(self, workloads: Sequence[Workload], mean_ms: Array) -> npt.NDArray[np.bool_]:
        """Return `n` flags: every kernel was timed, and the prediction is within a factor of 2 of the timed range."""
        low, high = self.latency_ms
        seen = np.array([not self.unseen(workload) for workload in workloads], dtype=np.bool_)
        return np.asarray(seen & (mean_ms >= 0.5 * low) & (mean_ms <= 2.0 * high))

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {"kernels": sorted(self.kernels), "latency_ms": list(self.latency_ms)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back."""
        low, high = record["latency_ms"]
        return cls(kernels=frozenset(record["kernels"]), latency_ms=(float(low), float(high)))


def timed_span(predictor: Predictor) -> tuple[float, float] | None:
    """Return the least and greatest latency a predictor was fitted to; None where it was fitted to none."""
    timed = getattr(predictor, "timed", None)
    span: tuple[float, float] | None = timed.latency_ms if timed is not None else getattr(predictor, "range_ms", None)
    return span


def timed_range(samples: Sequence[Sample]) -> TimedRange:
    """Return what samples cover."""
    latencies = [sample.latency_ms for sample in samples]
    kernels = frozenset[str]().union(*(kernels_of(sample.workload) for sample in samples))
    return TimedRange(kernels=kernels, latency_ms=(min(latencies), max(latencies)))


def kernels_of(workload: Workload) -> frozenset[str]:
    """Return the kernel kinds of a network: kinds with their kernel size, strides and fused activations."""
    groups = {name.rpartition(":")[0] for segment in workload.segments for name in segment_features(segment, _LANES)}
    return frozenset(group for group in groups if ".size" not in group and ".lanes" not in group)


def in_range(predictor: Predictor, workloads: Sequence[Workload], *, names: Sequence[str] = ()) -> Prediction:
    """Return latencies, all of them inside what the predictor's samples cover.

    Args:
        predictor: Of the device.
        workloads: Networks.
        names: Of the networks, for messages; by default their numbers.

    Raises:
        MeasurementError: A network is out of range; the message says why and what to time.
    """
    prediction = predictor.predict(workloads)
    for number, covered in enumerate(prediction.in_range):
        if covered:
            continue
        reason = refusal(predictor, workloads[number], float(prediction.mean_ms[number]))
        name = names[number] if names else f"network {number}"
        raise MeasurementError(f"the latency of {name} cannot be predicted: {reason}")
    return prediction


def refusal(predictor: Predictor, workload: Workload, mean_ms: float) -> str:
    """Return in words why an out-of-range network is refused."""
    unseen = predictor.unseen(workload)
    if unseen:
        return f"no timed network held {', '.join(unseen)}; time networks that do"
    return f"{mean_ms:.4g} ms lies more than a factor of 2 outside the timed networks; time networks of that size"
