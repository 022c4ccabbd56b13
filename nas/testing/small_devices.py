"""A device that is made up, so that its truth is known: what latency models are checked on.

A network takes a constant and, for every operator, the greater of compute and memory time with a launch: a form that
no model of the library assumes as such. Every timing errs by a factor drawn independently for each network, so left-out
networks are exchangeable with timed ones, which is what calibration is promised for.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from latency_models.backends.memory import Memory
from latency_models.device import Device
from latency_models.prediction import Sample
from latency_models.probe import ProbeOptions, choose_blocks
from search_spaces.counts import op_macs
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import SearchSpace, decode, sample
from search_spaces.workload import Workload

DEVICE = Device(name="made-up", backend=Memory())

SPACE = MixedSpace(
    widths=((8, 20), (24,), (40, 64)),
    expansions=(2, 3),
    depths=(1, 2, 3),
    head_widths=(60,),
    kernels=(3, 5),
    resolutions=(32,),
)
"""Few distinct blocks, since lowering one takes milliseconds."""

NOISE = 0.04
"""Standard deviation of the log of what a timing is off by."""

BASE_MS = 0.05
"""What any network takes."""

_LAUNCH_MS = 0.004
_MACS_PER_MS = {"depthwise": 1.1e6, "conv": 6e6}
_BYTES_PER_MS = 8e6


def true_ms(workload: Workload) -> float:
    """Return what a network takes on the made-up device."""
    total = BASE_MS
    for op in workload:
        grouped = op.kind == "conv" and op.attribute("groups", 1) != 1
        compute = op_macs(op) / _MACS_PER_MS["depthwise" if grouped else "conv"]
        total += _LAUNCH_MS + max(compute, op.output.num_bytes / _BYTES_PER_MS)
    return total


@cache
def networks(count: int = 120) -> tuple[Workload, ...]:
    """Return distinct random networks in float32, as they are timed."""
    return _workloads(SPACE, count, seed=1)


@cache
def blocks(count: int = 40) -> tuple[Workload, ...]:
    """Return the most frequent blocks of the networks, each as a network of one segment."""
    found = choose_blocks(SPACE, ProbeOptions(blocks=count))
    return tuple(with_precision(lower(architecture), None) for architecture in found)


@cache
def strange_network() -> Workload:
    """Return a network with kernels that no network of `networks` has: depthwise convolutions of 7 x 7."""
    return _workloads(MixedSpace(kernels=(7,), resolutions=(32,), depths=(1,)), 1, seed=0)[0]


@cache
def huge_network() -> Workload:
    """Return a network with the kernels of `networks` that takes about 50 times as long as any of them."""
    return _workloads(
        MixedSpace(
            widths=((320,), (480,), (640,)),
            expansions=(2, 3),
            depths=(3,),
            head_widths=(64,),
            kernels=(3, 5),
            resolutions=(96,),
        ),
        1,
        seed=0,
    )[0]


def timed(workloads: Sequence[Workload], *, seed: int = 0) -> list[Sample]:
    """Return samples of networks, each off by a factor of its own."""
    factors = np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(workloads)))
    return [
        Sample(workload, true_ms(workload) * float(factor)) for workload, factor in zip(workloads, factors, strict=True)
    ]


def _workloads(space: SearchSpace, count: int, *, seed: int) -> tuple[Workload, ...]:
    rows = sample(space, 2 * count, np.random.default_rng(seed))
    distinct = {(known := decode(space, row)).key: known for row in rows}
    return tuple(with_precision(lower(known), None) for known in list(distinct.values())[:count])
