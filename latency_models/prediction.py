"""What a latency model is: it is fitted to samples of a device and returns a predictor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from latency_models.device import Device
from search_spaces.errors import MeasurementError, near_matches
from search_spaces.measurement import Measurement, Origin
from search_spaces.registry import Registry
from search_spaces.workload import Segment, Workload

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed network: its workload at the precision that was timed, and its latency."""

    workload: Workload
    latency_ms: float
    origin: Origin = "measured"


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predicted latencies of `n` networks.

    Attributes:
        mean_ms: `n` best estimates.
        spread: `n` relative scales of the error; 1 where the model knows no difference between networks.
        residuals: `m` relative errors in units of `spread`, (true - predicted) / predicted, sorted, taken from
            networks of the target device that were left out of the fit.
        in_range: `n` flags: whether the model has seen networks like this one; False wherever a kernel is unseen.
    """

    mean_ms: Array
    spread: Array
    residuals: Array
    in_range: npt.NDArray[np.bool_]

    def quantile_ms(self, level: float) -> Array:
        """Return the latency that a network stays under with probability `level`, shape `(n,)`."""
        return self.mean_ms * np.maximum(1.0 + self.spread * residual_quantile(self.residuals, level), 1e-3)

    def measurement(self, index: int, *, level: float = 0.9, source: str = "") -> Measurement:
        """Return one prediction with its two-sided interval at `level`."""
        mean = float(self.mean_ms[index])
        lower = float(self.quantile_ms((1 - level) / 2)[index])
        upper = float(self.quantile_ms((1 + level) / 2)[index])
        return Measurement(
            value=mean,
            unit="ms",
            origin="predicted",
            lower=min(lower, mean),
            upper=max(upper, mean),
            level=level,
            source=source,
        )


def residual_quantile(residuals: Array, level: float) -> float:
    """Return the conformal quantile of sorted left-out residuals.

    With m residuals the (m + 1) x level smallest covers a new network with probability `level` when networks are
    exchangeable (Vovk et al. 2005; split-conformal form). Beyond the extreme residuals their tail is continued
    linearly instead of being infinite.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level=}")
    count = len(residuals)
    if not count:
        raise ValueError("no residuals to take a quantile of")
    position = (count + 1) * level - 1
    if count == 1:
        return float(residuals[0])
    if position < 0:
        return float(residuals[0] + position * (residuals[1] - residuals[0]))
    if position > count - 1:
        return float(residuals[-1] + (position - count + 1) * (residuals[-1] - residuals[-2]))
    return float(np.interp(position, np.arange(count), residuals))


class Predictor(Protocol):
    """A fitted latency model of one device, runtime, thread count and precision."""

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies of workloads at the precision the model was fitted for, each whatever the others are."""
        ...

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no sample held, such as "depthwise.k7"."""
        ...

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form, plain numbers with a `schema` version and a `type` whose reader is in PREDICTORS."""
        ...


@runtime_checkable
class AdditivePredictor(Predictor, Protocol):
    """A predictor whose mean is a constant plus a price of every segment, so that tables can hold it."""

    @property
    def base_ms(self) -> float:
        """The constant."""
        ...

    @property
    def residuals(self) -> Array:
        """Sorted relative errors of networks left out."""
        ...

    def segment_ms(self, segment: Segment) -> float:
        """Return what one segment, at the precision of the fit, adds."""
        ...


class LatencyModel(Protocol):
    """A method of predicting latency: a frozen dataclass of its settings.

    A method whose class says `uses_blocks: ClassVar[bool] = True` is fitted to single blocks, which are samples of one
    segment, beside networks. One that says `needs_samples: ClassVar[bool] = False` knows devices beforehand: it takes
    any number of samples, none included, and may call every network seen and in range.
    """

    def fit(self, device: Device, samples: Sequence[Sample]) -> Predictor:
        """Return a predictor fitted to samples of `device`; the same samples give the same predictor.

        Raises:
            MeasurementError: Too few samples, samples of several origins, or a latency that is no finite number above
                0.
        """
        ...


LATENCY_MODELS: Registry[LatencyModel] = Registry(
    "latency model",
    group="embedded_nas.latency_models",
    builtin=(
        "latency_models.additive",
        "latency_models.auto",
        "latency_models.gp",
        "latency_models.lookup",
        "latency_models.ridge_compact",
        "latency_models.roofline",
        "latency_models.transfer.model",
    ),
)

PREDICTORS: dict[str, Callable[[Mapping[str, Any]], Predictor]] = {}  # Any: JSON values
"""Readers of saved predictors, by the `type` in their JSON."""


def read_predictor(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    """Return a saved predictor, of whichever model wrote it.

    Raises:
        MeasurementError: No latency model reads this type, or it reads another schema.
    """
    LATENCY_MODELS.load()
    name = str(record.get("type"))
    if name not in PREDICTORS:
        raise MeasurementError(f"no latency model reads predictors of type {name!r}; {near_matches(name, PREDICTORS)}")
    return PREDICTORS[name](record)
