"""Sessions: files timed together, in one interleaved measurement, and what ties one session's level to another's.

The same files on the same machine take some percent more or less from one session to the next: neighbours, the boost
left to the clock, where the runtime's buffers came to lie. Within a session that hits all files alike; between two it
looks like a property of the networks. So a later session times a few networks of the profile again, the anchors, and
what it found for the others is brought to the profile's level before any model is fitted to it. What is reported, and
what a budget is held against, stays as it was measured.

A file that the device refuses costs a session nothing but that file: it is an outcome beside the timings of the others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.failures import FAILURES, FileFailure, Outcome, PartlyMeasured
from latency_models.graph import GraphInput
from latency_models.probe import BLOCK_INPUT, LEAST, write_probe
from latency_models.profile import Probed, Profile, Refused
from latency_models.timing import Backend
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower
from search_spaces.precision import Precision

ANCHORS = 16
"""Networks of each precision that tie a session to the profile; one network strays by 1 to 2 % by itself, so their
median by less than half a percent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """What one interleaved measurement found.

    Attributes:
        outcomes: Of every file, in the order given: its timing, or why there is none.
        levels: By precision, what share of the profile's latencies this session's are; without anchors 1.
    """

    outcomes: tuple[Outcome, ...]
    levels: Mapping[Precision, float] = field(default_factory=dict)

    def level(self, precision: Precision) -> float:
        """Return the level of files of one precision; 1 where no anchor tells it."""
        return self.levels.get(precision, 1.0)


def choose_anchors(profile: Profile, precisions: Sequence[Precision], *, count: int = ANCHORS) -> tuple[Probed, ...]:
    """Return networks of the profile's own session that are spread evenly over its latencies.

    Args:
        profile: Of the device.
        precisions: Of the files that the later session times.
        count: Anchors of each precision, or as many as there are.
    """
    chosen: list[Probed] = []
    for precision in precisions:
        known = [
            item for item in profile.networks if (item.precision, item.purpose, item.level) == (precision, "probe", 1.0)
        ]
        known.sort(key=lambda item: item.timing.latency_ms)
        places = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
        chosen += [known[place] for place in places]
    return tuple(chosen)


def measured(
    backend: Backend,
    files: Sequence[Path],
    references: Sequence[Path],
    *,
    progress: Callable[[float], None] = lambda _share: None,
) -> tuple[Outcome, ...]:
    """Time files and return an outcome for each, in the order given.

    Args:
        backend: Of the device.
        files: What to time.
        references: Files that tell whether the device is steady: the first of them that it takes.
        progress: Told the share done.

    Raises:
        FileFailure: The device takes none of the references, or none of the files.
        ConnectionLost: The device went away and stayed away.
        MeasurementError: Timings that never settled.
    """
    for reference in references[:-1]:
        try:
            return _outcomes(backend, files, reference, progress)
        except FileFailure as error:
            if error.file != reference.name:
                raise
    return _outcomes(backend, files, references[-1], progress)


def _outcomes(
    backend: Backend, files: Sequence[Path], reference: Path, progress: Callable[[float], None]
) -> tuple[Outcome, ...]:
    try:
        return tuple(backend.measure(files, reference, progress=progress))
    except PartlyMeasured as partly:
        return partly.outcomes


def time_files(
    device: Device,
    files: Sequence[Path],
    *,
    anchors: Sequence[Probed] = (),
    graph_input: GraphInput,
    folder: Path,
    references: Sequence[Path] = (),
    progress: Callable[[float], None] = lambda _share: None,
) -> Session:
    """Time files, interleaved with anchors of the profile where some are given.

    Args:
        device: Where to time.
        files: What to time.
        anchors: As `choose_anchors` found them.
        graph_input: How the profile's files take their input.
        folder: Where the anchors' files are written.
        references: As `measured` takes them; by default a middling anchor, else the first file.
        progress: Told the share done.

    Raises:
        FileFailure: The device takes no file, no reference, or none of the anchors of a precision.
        MeasurementError: The device went away, or timings never settled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, anchor in enumerate(anchors):
        path = folder / f"anchor-{anchor.architecture.key}.{anchor.precision}.onnx"
        write_probe(anchor.architecture, anchor.precision, device, graph_input, path, seed=number)
        written.append(path)
    if not references:
        references = (written[len(written) // 2] if written else files[0],)
    outcomes = measured(device.backend, [*files, *written], references, progress=progress)
    return Session(outcomes=outcomes[: len(files)], levels=_levels(anchors, outcomes[len(files) :]))


def _levels(anchors: Sequence[Probed], outcomes: Sequence[Outcome]) -> dict[Precision, float]:
    """Return the session's level by precision; raises the failure of anchors of which none was timed again."""
    ratios: dict[Precision, list[float]] = {}
    failed: dict[Precision, FileFailure] = {}
    for anchor, outcome in zip(anchors, outcomes, strict=True):
        if isinstance(outcome, FileFailure):
            failed[anchor.precision] = outcome
        else:
            ratios.setdefault(anchor.precision, []).append(outcome.latency_ms / anchor.timing.latency_ms)
    for precision, failure in failed.items():
        if precision not in ratios:
            raise failure
    return {precision: float(np.median(found)) for precision, found in ratios.items()}


def probe(
    device: Device,
    architectures: Sequence[Architecture],
    graph_input: GraphInput,
    *,
    folder: Path,
    probes: str,
    blocks: Sequence[Architecture] = (),
    progress: Callable[[str, float], None] = lambda _label, _share: None,
) -> Profile:
    """Write and time networks in every precision of the device, and return its profile.

    Networks that the device refuses are left out of what models are fitted to and noted in the profile with the reason.

    Args:
        device: Where to time.
        architectures: What to time.
        graph_input: How files take their input.
        folder: Where the files are written.
        probes: Digest of the probe set.
        blocks: Single blocks to time too, each as a network of its own.
        progress: Told what is done and how far.

    Raises:
        MeasurementError: The device went away, timings never settled, or so many networks were refused that too few
            are left to fit a model to.
    """
    start = time.monotonic()
    found = try_networks(
        device, [(item, "probe") for item in architectures] + [(item, "block") for item in blocks], graph_input,
        folder=folder, progress=progress,
    )  # fmt: skip
    profile = Profile(
        device=device.name,
        fingerprint=dict(device.backend.fingerprint()),
        probes=probes,
        seconds=time.monotonic() - start,
        networks=(),
    ).with_networks(found)
    _require_enough(profile, device.precisions)
    return profile


def _require_enough(profile: Profile, precisions: Sequence[Precision]) -> None:
    """Raise MeasurementError where refusals left too few whole networks of a precision."""
    for precision in precisions:
        refused = [known for known in profile.refused if (known.precision, known.purpose) == (precision, "probe")]
        count = sum((known.precision, known.purpose) == (precision, "probe") for known in profile.networks)
        if refused and count < LEAST:
            raise MeasurementError(
                f"{profile.device} timed {count} of {count + len(refused)} {precision} networks, a latency model needs "
                f"{LEAST}: probe more networks, a space that suits the device, or leave {precision} out of its "
                f"`precisions`; the first that gave no timing: {refused[0].reason}"
            )


def time_networks(
    device: Device,
    chosen: Sequence[tuple[Architecture, str]],
    graph_input: GraphInput,
    *,
    folder: Path,
    anchors: Sequence[Probed] = (),
    progress: Callable[[str, float], None] = lambda _label, _share: None,
) -> tuple[Probed, ...]:
    """Write and time networks of which none may be missing; arguments as of `try_networks`.

    Raises:
        FileFailure: The device refuses one of them.
        MeasurementError: As `try_networks`.
    """
    timed: list[Probed] = []
    for found in try_networks(device, chosen, graph_input, folder=folder, anchors=anchors, progress=progress):
        if isinstance(found, Refused):
            raise FAILURES[found.kind](found.reason, file=probe_file(found.architecture, found.precision))
        timed.append(found)
    return tuple(timed)


def try_networks(
    device: Device,
    chosen: Sequence[tuple[Architecture, str]],
    graph_input: GraphInput,
    *,
    folder: Path,
    anchors: Sequence[Probed] = (),
    progress: Callable[[str, float], None] = lambda _label, _share: None,
) -> tuple[Probed | Refused, ...]:
    """Write and time networks in every precision of the device, and return what became of each.

    Args:
        device: Where to time.
        chosen: Networks, each with its purpose.
        graph_input: How files take their input.
        folder: Where the files are written.
        anchors: Networks of the profile that the new ones join; without them the session stands by itself.
        progress: Told what is done and how far.

    Raises:
        FileFailure: The device refuses all of them.
        MeasurementError: It went away, or timings never settled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[tuple[Architecture, str, Precision, Path]] = []
    for number, (architecture, purpose) in enumerate(chosen):
        for precision in device.precisions:
            path = folder / probe_file(architecture, precision)
            taken = BLOCK_INPUT if purpose == "block" else graph_input
            write_probe(architecture, precision, device, taken, path, seed=number)
            files.append((architecture, purpose, precision, path))
        progress("writing probes", (number + 1) / len(chosen))
    whole = [file for file in files if file[1] != "block"] or files
    by_size = [path for *_, path in sorted(whole, key=lambda file: macs(lower(file[0])))]
    session = time_files(
        device, [path for *_, path in files], anchors=anchors, graph_input=graph_input, folder=folder,
        references=[by_size[len(by_size) // part] for part in (2, 4, 8)],
        progress=lambda share: progress("timing probes", share),
    )  # fmt: skip
    return tuple(
        _network(architecture, purpose, precision, outcome, session.level(precision))
        for (architecture, purpose, precision, _), outcome in zip(files, session.outcomes, strict=True)
    )


def _network(
    architecture: Architecture, purpose: str, precision: Precision, outcome: Outcome, level: float
) -> Probed | Refused:
    if isinstance(outcome, FileFailure):
        return Refused(
            architecture=architecture, precision=precision, kind=outcome.kind, reason=str(outcome), purpose=purpose
        )
    return Probed(architecture=architecture, precision=precision, timing=outcome, purpose=purpose, level=level)


def probe_file(architecture: Architecture, precision: Precision) -> str:
    """Return the name of a network's file."""
    return f"{architecture.key}.{precision}.onnx"
