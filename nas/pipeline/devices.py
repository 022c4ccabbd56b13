"""A device by itself, without a run: found out about, measured or imported, fitted, and told what to time next."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from latency_models.backends.command import Command
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.int8_scheme import Scheme, choose_scheme, suited
from latency_models.prediction import LatencyModel, Predictor
from latency_models.probe import ProbeOptions, choose_probes, probe_digest
from latency_models.profile import Profile, profile_path
from latency_models.sessions import choose_anchors, try_networks
from nas.config import describe
from nas.pipeline.next_networks import Suggestion, suggest
from nas.pipeline.probe_set import TableMatch, carried_space, import_table, match_table
from nas.pipeline.probing import FittedDevice, fit, fitted_device, left_out_score
from nas.protocols import Progress, quiet
from nas.run import write_atomic
from search_spaces.errors import ConfigError, MeasurementError
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision
from search_spaces.space import SearchSpace

DOUBTFUL = 0.5
"""Share of networks within 10 % below which a model is warned of."""
_WORST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A file that a model predicts badly.

    Attributes:
        file: Its name.
        measured_ms: What was timed.
        predicted_ms: By a fit without it.
    """

    file: str
    measured_ms: float
    predicted_ms: float

    def __str__(self) -> str:
        return f"{self.file} measured {self.measured_ms:.3g} ms, predicted {self.predicted_ms:.3g} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How good a device's latency model is on networks left out of its fit, with 90 % intervals.

    Attributes:
        precision: Of the files.
        model: Name of the model's class.
        networks: How many were timed.
        within_5: Share within 5 %.
        within_10: Share within 10 %.
        mape: Mean absolute relative error, as a share.
        quantiles: Of the relative errors (true - predicted) / predicted, by level.
        worst: The files that are predicted worst, the worst first.
    """

    precision: Precision
    model: str
    networks: int
    within_5: Measurement
    within_10: Measurement
    mape: Measurement
    quantiles: Mapping[str, float]
    worst: tuple[Miss, ...] = ()

    def sentence(self) -> str:
        """Return the figures in words."""

        def share(known: Measurement) -> str:
            return f"{100 * known.value:.0f} [{100 * (known.lower or 0):.0f}, {100 * (known.upper or 0):.0f}] %"

        error = (
            f"{100 * self.mape.value:.1f} [{100 * (self.mape.lower or 0):.1f}, {100 * (self.mape.upper or 0):.1f}] %"
        )
        return (
            f"{self.precision}: {share(self.within_5)} within 5 %, {share(self.within_10)} within 10 %, MAPE {error} "
            f"on {self.networks} networks left out of the fit"
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether fewer than half of the networks are predicted within 10 %."""
        return self.within_10.value < DOUBTFUL

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "model": self.model,
            "networks": self.networks,
            "within_5": self.within_5.to_dict(),
            "within_10": self.within_10.to_dict(),
            "mape": self.mape.to_dict(),
            "quantiles": dict(self.quantiles),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedDevice:
    """A device that was added.

    Attributes:
        fitted: It with its profile and models.
        scheme: Its 8-bit scheme and why.
        accuracy: One for each precision.
        suggestions: Networks to time next, most informative first.
        path: File of the profile.
        seconds: Wall time of everything.
        known_before: Timed files that the store held before.
        table: How the table fits its probe set, for a device that is one.
    """

    fitted: FittedDevice
    scheme: Scheme
    accuracy: tuple[Accuracy, ...]
    suggestions: tuple[Suggestion, ...]
    path: Path
    seconds: float
    known_before: int = 0
    table: TableMatch | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the device's model doubtful, one sentence each."""
        told = [self.table.warning()] if self.table else []
        told += [
            f"{known.precision}: only {known.within_10.value:.0%} of the networks are predicted within 10 %; worst are "
            f"{'; '.join(map(str, known.worst))}; {self._suspicion()}"
            for known in self.accuracy
            if known.is_doubtful
        ]
        return tuple(filter(None, told))

    def _suspicion(self) -> str:
        backend = self.fitted.device.backend
        if isinstance(backend, Table):
            return "is every latency in milliseconds, and of the file it stands beside?"
        if isinstance(backend, Command):
            return "does the pattern read the latency, in the unit given, and is the file timed that was given?"
        return "was the device busy or throttled? Or its latency follows what the model does not know; see --model"


def add_device(
    device: Device,
    model: LatencyModel,
    space: SearchSpace,
    graph_input: GraphInput,
    options: ProbeOptions,
    *,
    store: Path,
    scratch: Path,
    more: int = 0,
    progress: Progress = quiet,
) -> AddedDevice:
    """Find out about a device, measure it or import its table, fit, and keep one file about it.

    Measured again is nothing that the store holds for this very device and probe set; `more` adds to it.

    Args:
        device: The device; its 8-bit scheme and file versions are found out unless it says them.
        model: How latency is predicted.
        space: Whose networks are probed; a table brings its own, in `probes.json` beside it.
        graph_input: How files take their input.
        options: How many networks and blocks.
        store: Folder of profiles.
        scratch: Where files are written.
        more: Networks to time besides, those that would teach the model most; 0 for a table. Of these and of the
            others those that the device refuses are left out and noted in the profile.
        progress: Told what is done and how far.

    Raises:
        ValueError: `more` is negative.
        ConfigError: `more` is wanted of a device that is only a table.
        DeviceError: The device cannot be reached, or the table has no probe set beside it.
        MeasurementError: The device goes away, never settles, or too few networks were timed.
    """
    start = time.monotonic()
    _check_more(device, more)
    fingerprint = device.backend.fingerprint()
    if isinstance(device.backend, Table):
        space = carried_space(device.backend) or space
    few = choose_probes(space, ProbeOptions(networks=10, seed=options.seed), allowed=frozenset(device.allow_ops))
    scheme = choose_scheme(device, fingerprint, few, graph_input, folder=scratch)
    device = suited(device, fingerprint, scheme)
    if isinstance(device.backend, Table):
        table, before = match_table(device.backend), 0
        fitted = _imported(device, device.backend, model, table)
    else:
        kept = profile_path(store, device.name, fingerprint, probe_digest(space, graph_input, device))
        table, before = None, len(Profile.load(kept).networks) if kept.exists() else 0
        fitted = fitted_device(
            device, model, space, graph_input, options, store=store, scratch=scratch, progress=progress
        )
    suggestions = suggest(fitted, space, count=max(more, 10), seed=options.seed)
    if more:
        chosen = [(item.architecture, "probe") for item in suggestions[:more]]
        anchors = choose_anchors(fitted.profile, device.precisions)
        found = try_networks(device, chosen, graph_input, folder=scratch, anchors=anchors, progress=progress)
        fitted = fitted.refitted(model, found)
        suggestions = suggest(fitted, space, count=10, seed=options.seed)
    fitted, accuracy = _judged(fitted, model)
    path = profile_path(store, device.name, fitted.profile.fingerprint, fitted.profile.probes)
    write_atomic(path, fitted.profile.to_json())
    return AddedDevice(
        fitted=fitted,
        scheme=scheme,
        accuracy=accuracy,
        suggestions=tuple(suggestions),
        path=path,
        seconds=time.monotonic() - start,
        known_before=before,
        table=table,
    )


def _check_more(device: Device, more: int) -> None:
    if more < 0:
        raise ValueError(f"more must not be negative, got {more}")
    if more and not device.backend.live:
        raise ConfigError(
            f"--more {more}: nothing here can time files on {device.name!r}, a table of what was timed; leave --more "
            "out, and the networks to time next are printed for whoever has the board"
        )


def _imported(device: Device, table: Table, model: LatencyModel, match: TableMatch) -> FittedDevice:
    """Return the device of a table with its models; raises MeasurementError with the counts of the table's rows."""
    device, profile = import_table(device, table)
    try:
        predictors = fit(model, device, profile)
    except MeasurementError as error:
        raise MeasurementError(f"{error}; {match.sentence()}") from error
    return FittedDevice(device=device, profile=profile, predictors=predictors, measured_now=False)


def _judged(fitted: FittedDevice, model: LatencyModel) -> tuple[FittedDevice, tuple[Accuracy, ...]]:
    """Return the device with a profile that says what its models are worth, and the same by precision."""
    device = fitted.device
    accuracy = tuple(
        accuracy_of(predictor, fitted.profile, precision, device, model)
        for precision, predictor in fitted.predictors.items()
    )
    profile = replace(
        fitted.profile,
        description=describe(device),
        protocol=describe(device.backend),
        accuracy={item.precision: item.to_dict() for item in accuracy},
    )
    return replace(fitted, profile=profile), accuracy


def accuracy_of(
    predictor: Predictor, profile: Profile, precision: Precision, device: Device, model: LatencyModel | None = None
) -> Accuracy:
    """Return how a model predicts networks left out of its fit; `model` fits anew where the predictor keeps no errors.

    Intervals of shares are Jeffreys' (a share of 100 % has one too), that of the mean error a bootstrap over networks.
    """
    found, latencies = left_out_score(predictor, profile, precision, device, model)
    predicted, measured = np.array(latencies.predicted_ms), np.array(latencies.measured_ms)
    errors, deviations = measured / predicted - 1.0, np.abs(predicted / measured - 1.0)
    count = len(errors)
    draws = np.random.default_rng(0).integers(0, count, (2000, count))

    def figure(value: float, lower: float, upper: float) -> Measurement:
        return Measurement(
            value=value,
            unit="1",
            origin=latencies.origin,  # type: ignore[arg-type]  # an origin as text
            lower=min(lower, value),
            upper=max(upper, value),
            source=f"{count} networks left out",
        )

    def share(value: float) -> Measurement:
        hits = round(value * count)
        low, high = scipy.stats.beta.ppf([0.05, 0.95], hits + 0.5, count - hits + 0.5)
        return figure(value, float(low), float(high))

    whole = [known for known in profile.networks if known.precision == precision and known.purpose != "block"]
    low, high = np.percentile(deviations[draws].mean(axis=1), [5, 95])
    return Accuracy(
        precision=precision,
        model=type(predictor).__name__,
        networks=count,
        within_5=share(found.within_5),
        within_10=share(found.within_10),
        mape=figure(found.mape, float(low), float(high)),
        quantiles={str(level): float(np.quantile(errors, level)) for level in (0.05, 0.25, 0.5, 0.75, 0.95)},
        worst=tuple(
            Miss(
                file=whole[place].timing.name, measured_ms=float(measured[place]), predicted_ms=float(predicted[place])
            )
            for place in np.argsort(-np.abs(np.log(np.maximum(predicted, 1e-9) / measured)), kind="stable")[:_WORST]
        ),
    )
