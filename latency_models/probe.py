"""Probes: which networks of a space are timed, and the files they are timed as."""

from collections import Counter
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.graph import GraphInput, float_model, int8_model
from latency_models.profile import digest
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.errors import DeviceError
from search_spaces.lowering import lower
from search_spaces.precision import Precision
from search_spaces.space import SearchSpace, decode, sample

LEAST = 10
"""Fewest networks that say anything about a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How a device is probed.

    Attributes:
        networks: Networks timed for each precision.
        seed: Of their choice.
        blocks: Blocks timed by themselves for each precision, the most frequent ones of the space; the model lookup
            needs them.
    """

    networks: int = 100
    seed: int = 0
    blocks: int = 0

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if self.networks < LEAST:
            raise ValueError(f"networks must be at least {LEAST}, got {self.networks}")
        if self.blocks < 0:
            raise ValueError(f"blocks must not be negative, got {self.blocks}")


def probe_digest(space: SearchSpace, graph_input: GraphInput, device: Device) -> str:
    """Return what tells one device's probe sets apart: space, form of the input, and how files are made.

    The device counts with what its files depend on: precisions, 8-bit scheme, allowed operators and ONNX versions. How
    many networks and which does not count, so that a profile can grow; nor do mean and standard deviation of images,
    which are numbers in a file and no work.
    """
    described: object = asdict(space) if is_dataclass(space) else repr(space)
    return digest(
        {
            "type": type(space).__name__,
            "space": described,
            "input": (graph_input.dtype, graph_input.layout, graph_input.batch),
            "precisions": device.precisions,
            "quantization": asdict(device.plan),
            "allow_ops": sorted(device.allow_ops),
            "onnx": (device.opset, device.ir_version),
        }
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

    Raises:
        DeviceError: The space has too few distinct networks that the device can run.
    """
    rng = np.random.default_rng(options.seed)
    found: dict[str, Architecture] = {}
    for row in sample(space, 12 * options.networks, rng):
        architecture = decode(space, row)
        if not allowed or all(op.kind in allowed or op.kind == "reshape" for op in lower(architecture)):
            found[architecture.key] = architecture
    pool = list(found.values())
    if len(pool) < LEAST:
        runnable = f" that run on the device (allow_ops: {', '.join(sorted(allowed))})" if allowed else ""
        raise DeviceError(
            f"{12 * options.networks} draws found only {len(pool)} distinct networks of the space{runnable}, a latency "
            f"model needs at least {LEAST}: widen the space{' or allow more operators' if allowed else ''}"
        )
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


def choose_blocks(
    space: SearchSpace, options: ProbeOptions, *, allowed: frozenset[str] = frozenset()
) -> list[Architecture]:
    """Return the most frequent blocks of random networks, each as a network of its own with the input it has there."""
    found: Counter[Architecture] = Counter()
    for row in sample(space, 400, np.random.default_rng(options.seed)):
        architecture = decode(space, row)
        arriving: tuple[int, ...] = architecture.input_shape
        segments = lower(architecture).segments
        blocks = [block for stage in architecture.stages for block in stage]
        for block, segment in zip(blocks, segments, strict=True):
            if len(arriving) == 3 and (
                not allowed or all(op.kind in allowed or op.kind == "reshape" for op in segment.ops)
            ):
                shape = (int(arriving[0]), int(arriving[1]), int(arriving[2]))
                found[Architecture(input_shape=shape, stages=((block,),))] += 1
            arriving = segment.output.shape[1:]
    return [block for block, _ in found.most_common(options.blocks)]


BLOCK_INPUT = GraphInput(dtype="float32", layout="nchw", mean=(0.0,), std=(1.0,))
"""How the file of a single block takes its input: as the block before would leave it."""


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
            plan=device.plan,
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
