"""Activation memory: the liveness lower bound of an operator order, and an arena plan that is checked against it.

Two figures exist for one network and are never mixed: the **bound** is the most bytes alive at once when the
operators run in the given order; the **plan** assigns every tensor an address in one arena and cannot be below
the bound. Weights are not in either. A reshape is an alias; every other operator needs its inputs and outputs at the
same time (no in-place execution).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.fusion import fuse_segment
from search_spaces.workload import Segment, Workload


@dataclass(frozen=True, slots=True)
class Buffer:
    """One stretch of memory: the values that share it, its size, and the operators during which it lives."""

    values: tuple[int, ...]
    num_bytes: int
    first: int
    last: int

    def overlaps(self, other: "Buffer") -> bool:
        """Tell whether both live during the same operator."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Addresses of all buffers in one arena.

    Attributes:
        buffers: What is placed.
        offsets: Address of each buffer in bytes, a multiple of `alignment`.
        arena_bytes: Size of the arena.
        bound_bytes: The liveness lower bound at the same alignment; no plan can be smaller.
        alignment: Every address and size is rounded up to it.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    arena_bytes: int
    bound_bytes: int
    alignment: int

    @property
    def is_optimal(self) -> bool:
        """Whether the plan meets the bound, so that no other plan of this operator order is smaller."""
        return self.arena_bytes == self.bound_bytes


def peak_bytes(workload: Workload) -> int:
    """Return the liveness lower bound of activation memory in bytes, for the operator order as it stands."""
    return max(map(segment_peak_bytes, workload.segments))


@functools.lru_cache(maxsize=65536)
def segment_peak_bytes(segment: Segment) -> int:
    """Return the liveness lower bound of one segment; in a chain only one tensor crosses between two segments."""
    return _bound(live_buffers(fuse_segment(segment), alignment=1))


def plan_memory(workload: Workload, *, alignment: int = 1) -> MemoryPlan:
    """Place every activation of the fused workload in one arena.

    Greedy by size (largest first, lowest gap that fits), then by start and by the largest sum alive, keeping the
    best; if that stays above the bound, up to 200 local changes of the order are tried with a fixed seed.

    Args:
        workload: The network, at the precision that ships.
        alignment: Addresses are multiples of it, in bytes.
    """
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1 byte, got {alignment=}")
    segment = fuse_segment(workload.flat())
    buffers = tuple(live_buffers(segment, alignment=alignment))
    bound = _bound(buffers)
    orders = _starting_orders(buffers)
    best_order, best = min(
        ((order, _place(buffers, order)) for order in orders), key=lambda pair: _size(buffers, pair[1])
    )
    if _size(buffers, best) > bound:
        best = _improve(buffers, best_order, best, bound)
    return MemoryPlan(buffers, tuple(best), _size(buffers, best), bound, alignment)


def live_buffers(segment: Segment, *, alignment: int) -> list[Buffer]:
    """Return the buffers of a fused segment: aliases joined, each with its lifetime in operator numbers."""
    owner = {segment.input.id: segment.input.id}
    size = {segment.input.id: segment.input.num_bytes}
    first = {segment.input.id: 0}
    last = {segment.input.id: 0}
    members: dict[int, list[int]] = {segment.input.id: [segment.input.id]}
    for step, op in enumerate(segment.ops):
        for value in op.inputs:
            last[owner[value.id]] = step
        for value in op.outputs:
            if op.kind == "reshape":
                owner[value.id] = owner[op.input.id]
                members[owner[op.input.id]].append(value.id)
            else:
                owner[value.id] = value.id
                size[value.id], first[value.id], members[value.id] = value.num_bytes, step, [value.id]
            last[owner[value.id]] = step
    last[owner[segment.output.id]] = max(len(segment.ops) - 1, 0)
    return [
        Buffer(tuple(members[root]), -(-size[root] // alignment) * alignment, first[root], last[root]) for root in size
    ]


def _bound(buffers: Sequence[Buffer]) -> int:
    events = sorted({buffer.first for buffer in buffers})
    return max(sum(b.num_bytes for b in buffers if b.first <= step <= b.last) for step in events)


def _size(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max(offset + buffer.num_bytes for buffer, offset in zip(buffers, offsets, strict=True))


def _starting_orders(buffers: Sequence[Buffer]) -> list[list[int]]:
    numbers = range(len(buffers))
    by_size = sorted(numbers, key=lambda n: (-buffers[n].num_bytes, buffers[n].first))
    by_start = sorted(numbers, key=lambda n: (buffers[n].first, -buffers[n].num_bytes))
    pressure = [sum(b.num_bytes for b in buffers if b.overlaps(a)) for a in buffers]
    by_pressure = sorted(numbers, key=lambda n: (-pressure[n], -buffers[n].num_bytes))
    return [by_size, by_start, by_pressure]


def _place(buffers: Sequence[Buffer], order: Sequence[int]) -> list[int]:
    """Give each buffer, in `order`, the lowest address where it overlaps nothing placed before."""
    offsets = [-1] * len(buffers)
    for number in order:
        buffer = buffers[number]
        taken = sorted(
            (offsets[other], offsets[other] + buffers[other].num_bytes)
            for other in range(len(buffers))
            if offsets[other] >= 0 and buffers[other].overlaps(buffer)
        )
        offset = 0
        for start, end in taken:
            if start - offset >= buffer.num_bytes:
                break
            offset = max(offset, end)
        offsets[number] = offset
    return offsets


def _improve(buffers: Sequence[Buffer], order: list[int], best: list[int], bound: int) -> list[int]:
    """Move one of the buffers that reach the top to an earlier place in the order, and keep what helps."""
    rng = np.random.default_rng(0)
    current, current_size = list(order), _size(buffers, best)
    for _ in range(200):
        offsets = _place(buffers, current)
        top = [n for n, b in enumerate(buffers) if offsets[n] + b.num_bytes == _size(buffers, offsets)]
        mover = int(rng.choice(top))
        trial = [n for n in current if n != mover]
        trial.insert(int(rng.integers(0, current.index(mover) + 1)), mover)
        placed = _place(buffers, trial)
        size = _size(buffers, placed)
        if size <= current_size:
            current = trial
            if size < current_size:
                best, current_size = placed, size
        if current_size == bound:
            break
    return best
