"""Sessions: files timed together, in one interleaved measurement, and what ties one session's level to another's.

The same files on the same machine take some percent more or less from one session to the next: neighbours, the boost
left to the clock, where the runtime's buffers came to lie. Within a session that hits all files alike; between two it
looks like a property of the networks. So a later session times a few networks of the profile again, the anchors, and
what it found for the others is brought to the profile's level before any model is fitted to it. What is reported, and
what a budget is held against, stays as it was measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.probe import BLOCK_INPUT, write_probe
from latency_models.profile import Probed, Profile
from latency_models.timing import Timing
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.precision import Precision

ANCHORS = 8
"""Networks of each precision that tie a session to the profile; one network strays by 1 to 2 % by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """What one interleaved measurement found.

    Attributes:
        timings: Of every file, in the order given.
        levels: By precision, what share of the profile's latencies this session's are; without anchors 1.
    """

    timings: tuple[Timing, ...]
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


def time_files(
    device: Device,
    files: Sequence[Path],
    *,
    anchors: Sequence[Probed] = (),
    graph_input: GraphInput,
    folder: Path,
    reference: Path | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Session:
    """Time files, interleaved with anchors of the profile where some are given.

    Args:
        device: Where to time.
        files: What to time.
        anchors: As `choose_anchors` found them.
        graph_input: How the profile's files take their input.
        folder: Where the anchors' files are written.
        reference: File that tells whether the device is steady; by default a middling anchor, else the first file.
        progress: Told the share done.

    Raises:
        MeasurementError: A file the runtime refuses, or timings that never settled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, anchor in enumerate(anchors):
        path = folder / f"anchor-{anchor.architecture.key}.{anchor.precision}.onnx"
        write_probe(anchor.architecture, anchor.precision, device, graph_input, path, seed=number)
        written.append(path)
    if reference is None:
        reference = written[len(written) // 2] if written else files[0]
    timings = tuple(device.backend.measure([*files, *written], reference, progress=progress))
    ratios: dict[Precision, list[float]] = {}
    for anchor, timing in zip(anchors, timings[len(files) :], strict=True):
        ratios.setdefault(anchor.precision, []).append(timing.latency_ms / anchor.timing.latency_ms)
    return Session(
        timings=timings[: len(files)],
        levels={precision: float(np.median(found)) for precision, found in ratios.items()},
    )


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

    Args:
        device: Where to time.
        architectures: What to time.
        graph_input: How files take their input.
        folder: Where the files are written.
        probes: Digest of the probe set.
        blocks: Single blocks to time too, each as a network of its own.
        progress: Told what is done and how far.

    Raises:
        MeasurementError: A file the runtime refuses, or timings that never settled.
    """
    start = time.monotonic()
    networks = time_networks(
        device, [(item, "probe") for item in architectures] + [(item, "block") for item in blocks], graph_input,
        folder=folder, progress=progress,
    )  # fmt: skip
    return Profile(
        device=device.name,
        fingerprint=dict(device.backend.fingerprint()),
        probes=probes,
        seconds=time.monotonic() - start,
        networks=networks,
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
    """Write and time networks, each with its purpose, in every precision of the device; raises as `probe` does.

    `anchors` are networks of the profile that the new ones join; without them the session stands by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[tuple[Architecture, str, Precision, Path]] = []
    for number, (architecture, purpose) in enumerate(chosen):
        for precision in device.precisions:
            path = folder / f"{architecture.key}.{precision}.onnx"
            taken = BLOCK_INPUT if purpose == "block" else graph_input
            write_probe(architecture, precision, device, taken, path, seed=number)
            files.append((architecture, purpose, precision, path))
        progress("writing probes", (number + 1) / len(chosen))
    whole = [file for file in files if file[1] != "block"] or files
    middle = sorted(whole, key=lambda file: macs(lower(file[0])))[len(whole) // 2][3]
    session = time_files(
        device, [path for *_, path in files], anchors=anchors, graph_input=graph_input, folder=folder,
        reference=middle, progress=lambda share: progress("timing probes", share),
    )  # fmt: skip
    return tuple(
        Probed(
            architecture=architecture,
            precision=precision,
            timing=timing,
            purpose=purpose,
            level=session.level(precision),
        )
        for (architecture, purpose, precision, _), timing in zip(files, session.timings, strict=True)
    )
