"""Probing: which networks of a space are timed, and the files they are timed as."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.graph import GraphInput, float_model, int8_model
from latency_models.profile import Probed, Profile, digest
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.errors import DeviceError
from search_spaces.lowering import lower
from search_spaces.precision import Precision
from search_spaces.space import SearchSpace, decode, sample


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How a device is probed.

    Attributes:
        networks: Networks timed for each precision.
        seed: Of their choice.
    """

    networks: int = 100
    seed: int = 0

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if self.networks < 10:
            raise ValueError(f"networks must be at least 10, got {self.networks}")


def probe_digest(space: SearchSpace, graph_input: GraphInput, options: ProbeOptions) -> str:
    """Return what tells one probe set from another: the space, the form of the input, number and seed."""
    described: object = asdict(space) if is_dataclass(space) else repr(space)
    return digest(
        {"type": type(space).__name__, "space": described, "input": asdict(graph_input), "options": asdict(options)}
    )


def choose_probes(
    space: SearchSpace, options: ProbeOptions, *, allowed: frozenset[str] = frozenset()
) -> list[Architecture]:
    """Return distinct networks spread evenly over the range of MACs on a logarithmic scale.

    Drawn at random most networks of a space are large, and the budget usually wants small ones; strata of equal
    width in log MACs cover both ends.

    Args:
        space: Where to draw.
        options: How many.
        allowed: Operator kinds the device can run; empty for all.
    """
    rng = np.random.default_rng(options.seed)
    found: dict[str, Architecture] = {}
    for row in sample(space, 12 * options.networks, rng):
        architecture = decode(space, row)
        if not allowed or all(op.kind in allowed or op.kind == "reshape" for op in lower(architecture)):
            found[architecture.key] = architecture
    pool = list(found.values())
    if len(pool) < 10:
        raise DeviceError(f"only {len(pool)} networks of the space run on the device; allow more operators")
    size = np.log([macs(lower(architecture)) for architecture in pool])
    targets = np.linspace(size.min(), size.max(), options.networks)
    chosen: list[int] = []
    free = np.ones(len(pool), dtype=np.bool_)
    for target in rng.permutation(targets):
        if free.any():
            nearest = int(np.where(free, np.abs(size - target), np.inf).argmin())
            free[nearest] = False
            chosen.append(nearest)
    return [pool[number] for number in chosen]


def write_probe(
    architecture: Architecture,
    precision: Precision,
    device: Device,
    graph_input: GraphInput,
    path: Path,
    *,
    seed: int = 0,
) -> None:
    """Write one network with random weights, in the operators the delivered file will have."""
    workload = lower(architecture)
    if precision == "int8":
        model = int8_model(
            workload,
            plan=device.quantization,
            graph_input=graph_input,
            seed=seed,
            opset=device.opset,
            ir_version=device.ir_version,
        )
    else:
        model = float_model(
            workload, graph_input=graph_input, seed=seed, opset=device.opset, ir_version=device.ir_version
        )
    path.write_bytes(model.SerializeToString())


def probe(
    device: Device,
    architectures: Sequence[Architecture],
    graph_input: GraphInput,
    *,
    folder: Path,
    probes: str,
    progress: Callable[[str, float], None] = lambda _label, _share: None,
) -> Profile:
    """Write and time networks in every precision of the device, and return its profile.

    Args:
        device: Where to time.
        architectures: What to time.
        graph_input: How files take their input.
        folder: Where the files are written.
        probes: Digest of the probe set.
        progress: Told what is done and how far.

    Raises:
        MeasurementError: A file the runtime refuses, or timings that never settled.
    """
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    files: list[tuple[Architecture, Precision, Path]] = []
    for number, architecture in enumerate(architectures):
        for precision in device.precisions:
            path = folder / f"{architecture.key}.{precision}.onnx"
            write_probe(architecture, precision, device, graph_input, path, seed=number)
            files.append((architecture, precision, path))
        progress("writing probes", (number + 1) / len(architectures))
    middle = sorted(files, key=lambda file: macs(lower(file[0])))[len(files) // 2][2]
    timings = device.backend.measure(
        [path for _, _, path in files], middle, progress=lambda share: progress("timing probes", share)
    )
    networks = tuple(
        Probed(architecture=architecture, precision=precision, timing=timing)
        for (architecture, precision, _), timing in zip(files, timings, strict=True)
    )
    return Profile(
        device=device.name,
        fingerprint=dict(device.backend.fingerprint()),
        probes=probes,
        seconds=time.monotonic() - start,
        networks=networks,
    )
