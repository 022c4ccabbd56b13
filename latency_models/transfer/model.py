"""The few-shot method as a registered latency model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from latency_models.additive import check_samples
from latency_models.device import Device
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Array, Prediction, Predictor, Sample, read_predictor
from latency_models.profile import Profile, default_folder, profiles_of
from latency_models.ridge_compact import check_schema
from latency_models.timed_range import TimedRange, timed_range
from latency_models.transfer.few_shot import FewShotFit, FewShotOptions, fit_device, forecast
from latency_models.transfer.forecast import refit_factor
from latency_models.transfer.population import Population
from latency_models.transfer.priors import prior_table
from latency_models.transfer.workloads import OperatorCounts, WorkloadInputs, count_operators, inputs_of
from search_spaces.errors import DeviceError, near_matches
from search_spaces.precision import Precision
from search_spaces.workload import Workload

SCHEMA = 1


@LATENCY_MODELS.register("transfer")
@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Few-shot prediction from imaginary devices and from devices measured before (`transfer.few_shot`).

    On public tables 20 random networks of a new device gave rank correlations of 0.91 on FBNet's pools and 0.975 on
    HELP's NAS-Bench-201 devices (`examples/benchmarks/latency_transfer.py`); source devices change those by less than
    0.01, so an empty `sources` is a sensible default. Settings are weighed by their evidence on the target's samples.

    Attributes:
        sources: Other devices, measured in the same precision: names of devices that were added (the newest profile
            of that name counts) or profile files (`latency_models.profile`). Their models' predictions become
            features, and count only as far as they explain the target's samples.
        priors: Shipped tables of public devices used in the same way, such as "fbnet.raspi4" (`transfer.priors`).
        options: Settings that are averaged over.
        population: The imaginary devices.
        min_samples: Fewest networks to fit from.
    """

    sources: tuple[str, ...] = ()
    priors: tuple[str, ...] = ()
    options: FewShotOptions = field(default_factory=FewShotOptions)
    population: Population = field(default_factory=Population)
    min_samples: int = 8

    def fit(self, device: Device, samples: Sequence[Sample]) -> "TransferLatency":
        """Return the fitted predictor.

        Raises:
            MeasurementError: Too few samples, or samples of several origins.
            DeviceError: A source that is not known, is the target itself, cannot be read or holds too few networks in
                this precision, or an unknown prior.
        """
        check_samples(device, samples, least=self.min_samples)
        workloads = [sample.workload for sample in samples]
        sources = (
            *(self._source(device, named, _precision(workloads[0])) for named in self.sources),
            *map(self._prior, self.priors),
        )
        return _fitted(
            counts=count_operators(workloads),
            latency_ms=np.array([sample.latency_ms for sample in samples]),
            sources=sources,
            source_ms=[source.predict(workloads).mean_ms for source in sources],
            timed=timed_range(samples),
            model=self,
        )

    def _source(self, device: Device, named: str, precision: Precision) -> Predictor:
        """Return the model of another device, fitted to its profile without sources of its own."""
        if named == device.name:
            raise DeviceError(f"sources name {named!r}, the device that is fitted: its own networks are no source")
        path = _source_file(named)
        samples = Profile.load(path).samples(precision, device.plan)
        if len(samples) < self.min_samples:
            raise DeviceError(
                f"the source profile {path} holds {len(samples)} {precision} networks, a source needs "
                f"{self.min_samples}: measure more or leave it out of sources"
            )
        return replace(self, sources=(), priors=()).fit(device, samples)

    def _prior(self, name: str) -> Predictor:
        """Return the model of a shipped table."""
        table, latency_ms = prior_table(name)
        return _fitted(
            counts=table.counts,
            latency_ms=latency_ms,
            sources=(),
            source_ms=(),
            timed=TimedRange(kernels=frozenset(), latency_ms=(float(latency_ms.min()), float(latency_ms.max()))),
            model=replace(self, sources=(), priors=()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferLatency:
    """A fitted few-shot model.

    It is saved as its timed networks and fitted again when it is read, which takes a fraction of a second and keeps
    the file readable and small.

    Attributes:
        model: What it was fitted by.
        counts: The timed networks.
        latency_ms: Their latencies.
        source_ms: Latencies of them predicted for each source device.
        inputs: Turns workloads into the method's inputs.
        fit: The fitted method.
        timed: What the samples cover.
    """

    model: Transfer
    counts: OperatorCounts
    latency_ms: Array
    source_ms: tuple[Array, ...]
    inputs: WorkloadInputs
    fit: FewShotFit
    timed: TimedRange

    @property
    def left_out(self) -> Array:
        """Relative error, (true - predicted) / predicted, of every sample by a fit without it."""
        errors = self.fit.left_out_ms
        predicted = np.maximum(self.latency_ms - errors, 1e-3 * self.latency_ms)
        return np.asarray(errors / predicted * refit_factor(len(errors)))

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies, with wider intervals for networks unlike the timed ones."""
        found = forecast(self.fit, self.inputs(workloads))
        return found.prediction(self.timed.holds(workloads, found.mean_ms))

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no sample held."""
        return self.timed.unseen(workload)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "type": "transfer",
            "schema": SCHEMA,
            "counts": self.counts.to_dict(),
            "latency_ms": self.latency_ms.tolist(),
            "sources": [source.to_dict() for source in self.inputs.sources],
            "source_ms": [known.tolist() for known in self.source_ms],
            "timed": self.timed.to_dict(),
            "options": asdict(self.model.options),
            "population": asdict(self.model.population),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TransferLatency":  # Any: JSON values
        """Read the JSON form back; raises MeasurementError for another schema."""
        check_schema(record, SCHEMA)
        return _fitted(
            counts=OperatorCounts.from_dict(record["counts"]),
            latency_ms=np.asarray(record["latency_ms"], dtype=np.float64),
            sources=tuple(read_predictor(source) for source in record["sources"]),
            source_ms=[np.asarray(known, dtype=np.float64) for known in record["source_ms"]],
            timed=TimedRange.from_dict(record["timed"]),
            model=Transfer(
                options=FewShotOptions(**_tuples(record["options"])),
                population=Population(**_tuples(record["population"])),
            ),
        )


def _fitted(
    *,
    counts: OperatorCounts,
    latency_ms: Array,
    sources: tuple[Predictor, ...],
    source_ms: Sequence[Array],
    timed: TimedRange,
    model: Transfer,
) -> TransferLatency:
    inputs, features = inputs_of(counts, source_ms, sources, model.population)
    return TransferLatency(
        model=model,
        counts=counts,
        latency_ms=latency_ms,
        source_ms=tuple(source_ms),
        inputs=inputs,
        fit=fit_device(features, latency_ms, model.options),
        timed=timed,
    )


def _source_file(named: str) -> Path:
    """Return the newest profile of the added device of that name, else the file of that name."""
    folder = default_folder()
    if found := profiles_of(folder, named):
        return found[-1]
    path = Path(named)
    if not path.is_file() and path.suffix != ".json":
        known = {file.name.rsplit(".", 3)[0] for file in folder.glob("*.json")}
        raise DeviceError(
            f"sources name {named!r}, neither a device that was added nor the file of a profile; "
            f"{near_matches(named, known)}"
        )
    return path


def _precision(workload: Workload) -> Precision:
    return "int8" if any(op.dtype == "int8" for op in workload) else "float32"


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON values
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def _read(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    return TransferLatency.from_dict(record)


PREDICTORS["transfer"] = _read
