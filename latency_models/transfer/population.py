"""A population of imaginary devices: what latencies can look like before anything is measured.

Every imaginary device is a roofline (Williams, Waterman and Patterson 2009, CACM 52(4)) with a launch cost: an
operator takes a launch overhead combined with a smooth maximum of compute time and memory time. The rates, the
overheads, the efficiency on small tensors, the channel alignment and the way the terms combine are drawn at random
over the range that real CPUs, GPUs, DSPs and accelerators span.

Difference from the paper: a roofline there bounds one measured machine; here it only generates plausible shapes.
Nothing in it is fitted to a device, and real devices may leave it (`operator_prior`).
"""

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.operators import BoolArray, IntArray, OperatorTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Ranges of the imaginary devices; spreads are standard deviations of natural logarithms.

    Attributes:
        num_devices: How many devices are drawn.
        seed: Of the draw; the same seed gives the same prior on every machine.
        launch_spread: Of the launch overhead relative to the median operator's compute time. Wide: it spans
            accelerators without any and eager GPU frameworks with nothing else.
        launch_kind_spread: Variation of the overhead between kinds of operators.
        compute_spread: Variation of the compute rate between kinds.
        memory_level: Log of the typical memory time relative to compute time.
        memory_spread: Spread of that ratio over devices.
        memory_kind_spread: Variation of the memory rate between kinds.
        weight_level: Log of the typical weight-loading time relative to compute time.
        weight_spread: Spread of that ratio over devices.
        window_spread: Spread of the efficiency of windows larger than 3x3.
        group_level: Log of the typical slow-down of grouped convolutions.
        group_spread: Spread of that slow-down.
        alignments: Channel multiples that a device may round output channels up to.
        small_tensor_exponents: Compute efficiency falls with output size to one of these powers.
        joins: Exponents of the norm that joins compute and memory time (1 adds, 8 is nearly a maximum).
        elided_costs: Relative costs of an elidable operator, one is drawn for each device.
    """

    num_devices: int = 256
    seed: int = 0
    launch_spread: float = 1.7
    launch_kind_spread: float = 0.4
    compute_spread: float = 0.7
    memory_level: float = -1.0
    memory_spread: float = 1.2
    memory_kind_spread: float = 0.5
    weight_level: float = -2.5
    weight_spread: float = 1.5
    window_spread: float = 0.25
    group_level: float = 0.2
    group_spread: float = 0.4
    alignments: tuple[int, ...] = (1, 4, 8, 16, 32)
    small_tensor_exponents: tuple[float, ...] = (0.0, 0.25, 0.5)
    joins: tuple[float, ...] = (1.0, 2.0, 8.0)
    elided_costs: tuple[float, ...] = (0.0, 0.2, 1.0)

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if self.num_devices < 2:
            raise ValueError(f"num_devices must be at least 2, got {self.num_devices}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What counts as typical among reference operators; times are relative to it.

    Attributes:
        macs: Median multiply-accumulates of operators that have any.
        traffic: Median activations read and written.
        weights: Median parameters of operators that have any.
        output: Largest output, in elements.
    """

    macs: float
    traffic: float
    weights: float
    output: float


def scales_of(operators: OperatorTable) -> Scales:
    """Return the scales of reference operators."""
    return Scales(
        macs=_median_positive(operators.macs),
        traffic=_median_positive(operators.input_elements + operators.output_elements),
        weights=_median_positive(operators.weight_elements),
        output=float(operators.output_elements.max(initial=1.0)),
    )


def operator_times(operators: OperatorTable, scales: Scales, population: Population) -> Array:
    """Return `U x S` times of operators on every imaginary device, in units of each device."""
    devices = _devices(population)
    kinds = {kind: _kind_rates(population, kind) for kind in set(operators.kind)}
    launch_rate, compute_rate, memory_rate = (
        np.stack([kinds[kind][number] for kind in operators.kind]) for number in range(3)
    )
    launch = devices.launch * launch_rate
    compute = _compute_times(operators, scales, devices) * compute_rate
    traffic = (operators.input_elements + operators.output_elements) / scales.traffic
    memory = traffic[:, None] * devices.memory * memory_rate
    memory += (operators.weight_elements / scales.weights)[:, None] * devices.weights
    body = (compute**devices.join + memory**devices.join) ** (1.0 / devices.join)
    times = np.choose(devices.style, [launch + body, np.maximum(launch, body), np.hypot(launch, body)])
    times = np.where(operators.elidable[:, None], devices.elided * times, times)
    return np.asarray(np.where(operators.overlappable[:, None], devices.overlapped * times, times))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Devices:
    """`S` values each, one for every imaginary device.

    Attributes:
        launch: Overhead of a launch.
        memory: Time of typical traffic.
        weights: Time of typical weights.
        join: Exponent that joins compute and memory time.
        style: 0 pays for launches in sequence, 1 hides them behind the body, 2 partly hides them.
        exponent: Of the efficiency on small tensors.
        alignment: Channels are rounded up to this.
        window: Slow-down of windows larger than 3x3.
        group: Slow-down of grouped convolutions.
        elided: Cost factor of elidable operators.
        overlapped: Cost factor of operators beside the longest path.
    """

    launch: Array
    memory: Array
    weights: Array
    join: Array
    style: IntArray
    exponent: Array
    alignment: Array
    window: Array
    group: Array
    elided: Array
    overlapped: Array


@functools.lru_cache(maxsize=16)
def _devices(population: Population) -> _Devices:
    p, size = population, population.num_devices
    rng = np.random.default_rng(p.seed)

    def drawn(options: Sequence[float]) -> Array:
        return np.asarray(rng.choice(np.asarray(options, dtype=np.float64), size))

    return _Devices(
        launch=rng.lognormal(0.0, p.launch_spread, size),
        memory=rng.lognormal(p.memory_level, p.memory_spread, size),
        weights=rng.lognormal(p.weight_level, p.weight_spread, size),
        join=drawn(p.joins),
        style=rng.integers(3, size=size),
        exponent=drawn(p.small_tensor_exponents),
        alignment=drawn(p.alignments),
        window=rng.lognormal(0.0, p.window_spread, size),
        group=rng.lognormal(p.group_level, p.group_spread, size),
        elided=drawn(p.elided_costs),
        overlapped=rng.uniform(size=size),
    )


@functools.lru_cache(maxsize=1024)
def _kind_rates(population: Population, kind: str) -> tuple[Array, Array, Array]:
    """Return launch, compute and memory factors of a kind on `S` devices, the same whatever other kinds there are."""
    p, size = population, population.num_devices
    rng = np.random.default_rng([p.seed, zlib.crc32(kind.encode())])
    return (
        rng.lognormal(0.0, p.launch_kind_spread, size),
        rng.lognormal(0.0, p.compute_spread, size),
        rng.lognormal(0.0, p.memory_kind_spread, size),
    )


def _compute_times(operators: OperatorTable, scales: Scales, devices: _Devices) -> Array:
    """Return `U x S` pure arithmetic times before the rates of kinds."""
    size = np.maximum(operators.output_elements / scales.output, 1e-9)[:, None]
    channels = operators.out_channels[:, None]
    padding = np.ceil(channels / devices.alignment) * devices.alignment / channels
    times = (operators.macs / scales.macs)[:, None] * size**-devices.exponent * padding
    times = times * _where(operators.kernel_size > 3, devices.window)
    return np.asarray(times * _where(operators.grouped, devices.group))


def _where(rows: BoolArray, factor: Array) -> Array:
    return np.where(rows[:, None], factor, 1.0)


def _median_positive(values: Array) -> float:
    """Return the median of the positive entries, 1 if there are none."""
    positive = values[values > 0]
    return float(np.median(positive)) if len(positive) else 1.0
