"""The device of a run: its profile, measured once, and the latency models fitted to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.prediction import Array, LatencyModel, Predictor
from latency_models.probe import ProbeOptions, choose_blocks, choose_probes, probe_digest
from latency_models.profile import Probed, Profile, Refused, profile_path
from latency_models.score import Score, score
from latency_models.sessions import choose_anchors, probe, try_networks
from nas.config import describe
from nas.protocols import Progress, quiet
from nas.results import LatencyFit
from nas.run import write_atomic
from search_spaces.architecture import Architecture
from search_spaces.errors import MeasurementError
from search_spaces.precision import Precision
from search_spaces.space import SearchSpace

FOLDS = 5
"""Parts of the networks that are left out in turn where a model keeps no errors of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedDevice:
    """A device with everything known about its latency.

    Attributes:
        device: The device.
        profile: Its measurements.
        predictors: Latency models by precision.
        measured_now: Whether this run took the measurements.
    """

    device: Device
    profile: Profile
    predictors: Mapping[Precision, Predictor]
    measured_now: bool

    def refitted(self, model: LatencyModel, more: Sequence[Probed | Refused]) -> "FittedDevice":
        """Return the device with further measurements and models fitted to all of them; refusals are noted."""
        profile = self.profile.with_networks(more)
        return FittedDevice(
            device=self.device,
            profile=profile,
            predictors=fit(model, self.device, profile),
            measured_now=self.measured_now,
        )


def fitted_device(
    device: Device,
    model: LatencyModel,
    space: SearchSpace,
    graph_input: GraphInput,
    options: ProbeOptions,
    *,
    store: Path,
    scratch: Path,
    progress: Progress = quiet,
) -> FittedDevice:
    """Return the device's models, from its stored profile where there is one for just this device and space.

    A device without timing has no models, and nothing is probed.

    Args:
        device: The device.
        model: How latency is predicted.
        space: Whose networks are probed.
        graph_input: How delivered files take their input.
        options: How many networks.
        store: Folder of profiles, shared by runs.
        scratch: Where probe files are written.
        progress: Told what is done and how far.

    Raises:
        DeviceError: The stored profile is damaged.
        MeasurementError: The device went away, timings that never settled, or too few of them.
    """
    fingerprint = device.backend.fingerprint()
    if not device.is_timed:
        digest = probe_digest(space, graph_input, device)
        empty = Profile(device=device.name, fingerprint=dict(fingerprint), probes=digest, seconds=0.0, networks=())
        return FittedDevice(device=device, profile=empty, predictors={}, measured_now=False)
    profile, now = stored_profile(
        device, fingerprint, space, graph_input, options, store=store, scratch=scratch, progress=progress
    )
    return FittedDevice(device=device, profile=profile, predictors=fit(model, device, profile), measured_now=now)


def stored_profile(
    device: Device,
    fingerprint: Mapping[str, str],
    space: SearchSpace,
    graph_input: GraphInput,
    options: ProbeOptions,
    *,
    store: Path,
    scratch: Path,
    progress: Progress = quiet,
) -> tuple[Profile, bool]:
    """Return the device's profile for a space, and whether it was measured just now; it is stored before anything else.

    A stored profile of fewer networks or blocks than are asked for is kept, and the rest is timed where the device can
    be reached: nothing is measured twice.

    Args:
        device: The device.
        fingerprint: What its back end says of it.
        space: Whose networks are probed.
        graph_input: How files take their input.
        options: How many networks and blocks.
        store: Folder of profiles.
        scratch: Where probe files are written.
        progress: Told what is done and how far.

    Raises:
        DeviceError: The stored profile is damaged, or of another device or probe set.
        MeasurementError: The device went away, timings that never settled, or too few of them.
    """
    digest = probe_digest(space, graph_input, device)
    path = profile_path(store, device.name, fingerprint, digest)
    allowed = frozenset(device.allow_ops)
    if not path.exists():
        architectures = choose_probes(space, options, allowed=allowed)
        blocks = choose_blocks(space, options, allowed=allowed)
        profile = probe(
            device, architectures, graph_input, folder=scratch, probes=digest, blocks=blocks, progress=progress
        )
        profile = replace(profile, description=describe(device), protocol=describe(device.backend))
        write_atomic(path, profile.to_json())
        return profile, True
    profile = Profile.load(path)
    profile.require(fingerprint, digest, source=str(path))
    wanted = _wanted(profile, space, options, allowed) if device.backend.live else []
    if wanted:
        more = try_networks(
            device, wanted, graph_input, folder=scratch, anchors=choose_anchors(profile, device.precisions),
            progress=progress,
        )  # fmt: skip
        profile = profile.with_networks(more)
        write_atomic(path, profile.to_json())
    return profile, bool(wanted)


def _wanted(
    profile: Profile, space: SearchSpace, options: ProbeOptions, allowed: frozenset[str]
) -> list[tuple[Architecture, str]]:
    """Return networks and blocks that are missing from a profile, each with its purpose."""
    tried: list[Probed | Refused] = [*profile.networks, *profile.refused]
    wanted: list[tuple[Architecture, str]] = []
    for purpose, count in (("probe", options.networks), ("block", options.blocks)):
        known = {item.architecture.key for item in tried if item.purpose == purpose}
        if len(known) < count:
            choose = choose_probes if purpose == "probe" else choose_blocks
            new = [item for item in choose(space, options, allowed=allowed) if item.key not in known]
            wanted += [(item, purpose) for item in new[: count - len(known)]]
    return wanted


def _cross_predicted(model: LatencyModel, device: Device, profile: Profile, precision: Precision) -> Array:
    """Return every network's latency by a fit without its fifth of the networks; single blocks stay in every fit."""
    samples = profile.samples(precision, device.plan)
    blocks = []
    if getattr(model, "uses_blocks", False):
        blocks = profile.samples(precision, device.plan, blocks=True)
        blocks = [sample for sample in blocks if not any(sample.workload == known.workload for known in samples)]
    fold = np.random.default_rng(0).permutation(len(samples)) % FOLDS
    predicted = np.zeros(len(samples))
    for number in range(FOLDS):
        kept = [sample for sample, its in zip(samples, fold, strict=True) if its != number]
        left = np.flatnonzero(fold == number)
        predictor = model.fit(device, [*kept, *blocks])
        predicted[left] = predictor.predict([samples[index].workload for index in left]).mean_ms
    return predicted


def fit(model: LatencyModel, device: Device, profile: Profile) -> dict[Precision, Predictor]:
    """Return one predictor for each precision of the device; none where it has no timing."""
    if not device.is_timed:
        return {}
    blocks = bool(getattr(model, "uses_blocks", False))
    return {
        precision: model.fit(device, profile.samples(precision, device.plan, blocks=blocks))
        for precision in device.precisions
    }


def left_out_score(
    predictor: Predictor, profile: Profile, precision: Precision, device: Device, model: LatencyModel | None = None
) -> tuple[Score, LatencyFit]:
    """Return how a model predicts networks that were left out of its fit.

    Args:
        predictor: Fitted to the profile. Where it has `left_out`, the relative error (true - predicted) / predicted
            of every sample by a fit without it, in the order of the samples, those count.
        profile: Of the device.
        precision: Of the files.
        device: The device.
        model: Fits again without a fifth of the samples, where the predictor keeps no such errors.

    Raises:
        MeasurementError: Neither says anything about networks left out.
    """
    samples = profile.samples(precision, device.plan)
    measured = np.array([sample.latency_ms for sample in samples])
    residuals = np.asarray(getattr(predictor, "left_out", ()))
    if len(residuals) == len(samples):
        predicted = measured / (1.0 + residuals)
    elif model is not None and len(samples) >= FOLDS:
        predicted = _cross_predicted(model, device, profile, precision)
    else:
        raise MeasurementError(
            f"{type(predictor).__name__} says nothing of networks left out of its fit to {len(samples)} {precision} "
            f"networks; time at least {FOLDS}"
        )
    found = score(predicted, measured)
    fit = LatencyFit(
        precision=precision,
        networks=len(samples),
        within_5=found.within_5,
        within_10=found.within_10,
        mape=found.mape,
        lanes=int(getattr(predictor, "lanes", 0)),
        predicted_ms=tuple(map(float, predicted)),
        measured_ms=tuple(map(float, measured)),
        origin=samples[0].origin,
    )
    return found, fit
