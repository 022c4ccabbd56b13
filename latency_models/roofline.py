"""Latency estimated from a device's data sheet, before anything is measured on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.stats import norm

from latency_models.additive import check_samples
from latency_models.device import Device
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Array, Prediction, Predictor, Sample
from latency_models.ridge_compact import check_schema
from latency_models.transfer.operators import Operator
from latency_models.transfer.workloads import segment_operators
from search_spaces.workload import Segment, Workload

SCHEMA = 1
_LEAST_RESIDUALS = 5


@LATENCY_MODELS.register("roofline")
@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The greater of compute and memory time of every fused operator, plus what it takes to start one.

    From Williams, Waterman and Patterson (2009, CACM 52(4)), with a launch cost and a lower rate for operators that
    reuse few weights. It needs no measurement. The defaults are one core of a Cortex-A72 class CPU in float32. Where
    there are measurements one factor fits it to them, and with five or more its intervals are those of their errors.

    Attributes:
        gmacs_per_s: Billions of multiply-accumulates per second of a large convolution, in the precision timed.
        gbytes_per_s: Memory bandwidth.
        bytes_per_element: Of activations and weights in the precision timed.
        launch_us: Microseconds to start an operator.
        depthwise_share: Share of `gmacs_per_s` that depthwise convolutions reach.
        scale_spread: Standard deviation of log latency without any measurement; 0.7 is a factor of 2.
        shape_spread: The same once one factor has been fitted.
    """

    gmacs_per_s: float = 8.0
    gbytes_per_s: float = 4.0
    bytes_per_element: int = 4
    launch_us: float = 2.0
    depthwise_share: float = 0.25
    scale_spread: float = 0.7
    shape_spread: float = 0.25

    needs_samples: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("gmacs_per_s", "gbytes_per_s", "depthwise_share", "scale_spread", "shape_spread"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def fit(self, device: Device, samples: Sequence[Sample] = ()) -> "RooflineLatency":
        """Return the predictor; it takes any number of samples, none included.

        Raises:
            MeasurementError: Samples of several origins.
        """
        raw = RooflineLatency(model=self, factor=1.0, left_out=np.empty(0))
        if not samples:
            return raw
        check_samples(device, samples, least=1)
        estimated = raw.predict([sample.workload for sample in samples]).mean_ms
        errors = np.log([sample.latency_ms for sample in samples]) - np.log(estimated)
        factor = float(np.exp(errors.mean()))
        if len(errors) < 2:
            return replace(raw, factor=factor)
        left_out = (errors - errors.mean()) * len(errors) / (len(errors) - 1)
        return replace(raw, factor=factor, left_out=np.expm1(left_out))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RooflineLatency:
    """A roofline, scaled to measurements where there are any.

    Attributes:
        model: The device's rates.
        factor: Measured over estimated latency.
        left_out: Relative error, (true - predicted) / predicted, of every sample by a factor fitted without it; empty
            with fewer than two samples. Intervals come from them where there are five or more.
    """

    model: Roofline
    factor: float
    left_out: Array

    def segment_ms(self, segment: Segment) -> float:
        """Return what one segment adds."""
        return self.factor * sum(map(self._operator_ms, segment_operators(segment)))

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies; every network is in range, since no sample set its bounds."""
        means = np.array([sum(map(self.segment_ms, workload.segments)) for workload in workloads])
        return Prediction(means, np.ones(len(means)), self._residuals(), np.ones(len(means), dtype=np.bool_))

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return nothing: the rates hold for every kernel alike."""
        return ()

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "type": "roofline",
            "schema": SCHEMA,
            "model": asdict(self.model),
            "factor": self.factor,
            "left_out": self.left_out.tolist(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "RooflineLatency":  # Any: JSON values
        """Read the JSON form back; raises MeasurementError for another schema."""
        check_schema(record, SCHEMA)
        left_out = np.asarray(record["left_out"], dtype=np.float64)
        return cls(model=Roofline(**record["model"]), factor=float(record["factor"]), left_out=left_out)

    def _operator_ms(self, operator: Operator) -> float:
        m = self.model
        share = m.depthwise_share if operator.kind == "depthwise" else 1.0
        compute = operator.macs / (1e6 * m.gmacs_per_s * share)
        elements = operator.input_elements + operator.output_elements + operator.weight_elements
        return 1e-3 * m.launch_us + max(compute, elements * m.bytes_per_element / (1e6 * m.gbytes_per_s))

    def _residuals(self) -> Array:
        if len(self.left_out) >= _LEAST_RESIDUALS:
            return np.sort(self.left_out)
        spread = self.model.scale_spread if self.factor == 1.0 else self.model.shape_spread
        return np.asarray(np.expm1(spread * norm.ppf(np.arange(1, 200) / 200)))


def _read(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    return RooflineLatency.from_dict(record)


PREDICTORS["roofline"] = _read
