"""Activation memory: the liveness lower bound of an operator order, and an arena plan that is checked against it.

Two figures exist for one network and are never mixed: the **bound** is the most bytes alive at once when the
operators run in the given order; the **plan** assigns every tensor an address in one arena and cannot be below
the bound. Weights are not in either. A reshape is an alias; every other operator needs its inputs and outputs at the
same time, unless `in_place` says that the runtime lets a depthwise convolution overwrite its input. The formula of
the MCUNet papers is a third figure, `mcunet_peak_bytes`, for comparison with what they print. The first blocks
computed patch by patch are in `search_spaces.patches`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.fusion import fuse_segment
from search_spaces.workload import Op, Segment, Workload

MOVES = 60_000
"""Changes of an order of placing that are tried, times the number of buffers: about 1 s of CPU time for 200."""

STALL = 150
"""Changes without gain after which the search starts from another order."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """One stretch of memory.

    Attributes:
        values: Values that share it; none for scratch memory and for what an operator in place leaves over.
        num_bytes: Its size.
        first: Number of the operator from which on it lives.
        last: Number of the last operator during which it lives.
        stack: Buffers of one such number hold one tensor together and stand at fixed distances; -1 for none.
        base: Its distance from the start of that tensor.
    """

    values: tuple[int, ...]
    num_bytes: int
    first: int
    last: int
    stack: int = -1
    base: int = 0

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


def peak_bytes(workload: Workload, *, in_place: bool = False) -> int:
    """Return the liveness lower bound of activation memory in bytes, for the operator order as it stands.

    Args:
        workload: The network, at the precision that ships.
        in_place: Whether depthwise convolutions overwrite their input; see `live_buffers`.
    """
    return max(segment_peak_bytes(segment, in_place) for segment in workload.segments)


@functools.lru_cache(maxsize=65536)
def segment_peak_bytes(segment: Segment, in_place: bool = False) -> int:
    """Return the liveness lower bound of one segment; in a chain only one tensor crosses between two segments."""
    return bound_bytes(live_buffers(fuse_segment(segment), alignment=1, in_place=in_place))


def mcunet_peak_bytes(workload: Workload, *, in_place: bool = False) -> int:
    """Return peak memory in bytes as the MCUNet papers count it (Lin et al. 2020, arXiv:2007.10319).

    The greatest sum of input and output over convolutions and linear layers; in a residual block the block's input
    counts too while the depthwise convolution runs, but not while the projection does, which is why it may lie
    below the bound. Nothing is aligned and no other operator counts. The published code knows inverted residual
    blocks only; here a block is a segment, and residual where an addition reads the segment's input.

    Args:
        workload: The network, at the precision that ships.
        in_place: Whether a depthwise convolution takes one channel besides its input rather than a whole output, as
            in the second paper's figures (1372 kB for MobileNetV2 at 224 pixels).
    """
    return max(_mcunet_segment_bytes(segment, in_place=in_place) for segment in workload.segments)


def _mcunet_segment_bytes(segment: Segment, *, in_place: bool) -> int:
    ops = fuse_segment(segment).ops
    residual = any(op.kind == "add" and segment.input in op.inputs for op in ops)
    peak = 0
    for op in ops:
        if op.kind not in ("conv", "linear"):
            continue
        written = op.output.num_bytes
        if is_depthwise(op):
            written = written // op.output.shape[1] if in_place else written
            written += segment.input.num_bytes if residual else 0
        peak = max(peak, op.input.num_bytes + written)
    return peak


def is_depthwise(op: Op) -> bool:
    """Tell whether an operator is a convolution in which every output channel reads its own input channel alone."""
    return op.kind == "conv" and op.integer("groups") == op.input.shape[1] == op.output.shape[1]


def plan_memory(workload: Workload, *, alignment: int = 1, in_place: bool = False) -> MemoryPlan:
    """Place every activation of the fused workload in one arena.

    Greedy by size (largest first, lowest gap that fits), then by start and by the largest sum alive, keeping the
    best; if that stays above the bound, local changes of the order are tried with a fixed seed.

    Args:
        workload: The network, at the precision that ships.
        alignment: Addresses are multiples of it, in bytes.
        in_place: Whether depthwise convolutions overwrite their input; see `live_buffers`.
    """
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1 byte, got {alignment=}")
    segment = fuse_segment(workload.flat())
    buffers = tuple(live_buffers(segment, alignment=alignment, in_place=in_place))
    bound = bound_bytes(buffers)
    orders = _starting_orders(buffers)
    best = min((_place(buffers, order) for order in orders), key=lambda offsets: _size(buffers, offsets))
    if _size(buffers, best) > bound:
        best = _improve(buffers, orders, best, bound)
    return MemoryPlan(buffers, tuple(best), _size(buffers, best), bound, alignment)


def live_buffers(
    segment: Segment, *, alignment: int, in_place: bool = False, fixed: frozenset[int] = frozenset()
) -> list[Buffer]:
    """Return the buffers of a fused segment: aliases joined, each with its lifetime in operator numbers.

    With `in_place`, a depthwise convolution that reads its input last writes over it channel by channel, as in
    MCUNet's TinyEngine (arXiv:2007.10319, section 3.2): both share one buffer, and the first output channel waits in
    memory of its own until the last input channel was read. Where the map gets smaller, the end of the buffer is free
    afterward.

    Args:
        segment: With fused operators.
        alignment: Sizes are rounded up to it, in bytes.
        in_place: Whether depthwise convolutions overwrite their input.
        fixed: Values that must keep a buffer of their own.
    """
    owner = {segment.input.id: segment.input.id}
    size = {segment.input.id: segment.input.num_bytes}
    first = {segment.input.id: 0}
    last = {segment.input.id: 0}
    members: dict[int, list[int]] = {segment.input.id: [segment.input.id]}
    extra: list[Buffer] = []
    read_last = {value.id: step for step, op in enumerate(segment.ops) for value in op.inputs}
    read_last[segment.output.id] = len(segment.ops)
    for step, op in enumerate(segment.ops):
        for value in op.inputs:
            last[owner[value.id]] = step
        shares = op.kind == "reshape"
        if in_place and _may_overwrite(op) and not fixed & {op.input.id, op.output.id}:
            root = owner[op.input.id]
            shares = max(read_last.get(value, step) for value in members[root]) <= step
            if shares:
                before, after = (_rounded(value.num_bytes, alignment) for value in (op.input, op.output))
                plane = _rounded(op.output.num_bytes // op.output.shape[1], alignment)
                extra.append(Buffer((), plane, step, step))
                if after < before:
                    extra.append(Buffer((), before - after, first[root], step, root, after))
                    size[root] = op.output.num_bytes
        for value in op.outputs:
            if shares:
                owner[value.id] = owner[op.input.id]
                members[owner[op.input.id]].append(value.id)
            else:
                owner[value.id] = value.id
                size[value.id], first[value.id], members[value.id] = value.num_bytes, step, [value.id]
            last[owner[value.id]] = step
    last[owner[segment.output.id]] = max(len(segment.ops) - 1, 0)
    stacks = {buffer.stack for buffer in extra}
    kept = [
        Buffer(
            tuple(members[root]),
            _rounded(size[root], alignment),
            first[root],
            last[root],
            root if root in stacks else -1,
        )
        for root in size
    ]
    return kept + extra


def _may_overwrite(op: Op) -> bool:
    return is_depthwise(op) and op.output.num_bytes <= op.input.num_bytes


def _rounded(num_bytes: int, alignment: int) -> int:
    return -(-num_bytes // alignment) * alignment


def bound_bytes(buffers: Sequence[Buffer]) -> int:
    """Return the most bytes alive during any one operator."""
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
        if offsets[number] >= 0:
            continue
        stack = buffers[number].stack
        group = [number] if stack < 0 else [n for n, buffer in enumerate(buffers) if buffer.stack == stack]
        start = _lowest(buffers, offsets, group)
        for member in group:
            offsets[member] = start + buffers[member].base
    return offsets


def _lowest(buffers: Sequence[Buffer], offsets: Sequence[int], group: Sequence[int]) -> int:
    """Return the lowest start at which no buffer of `group` meets one that is placed and lives at the same time."""
    start = 0
    taken = sorted(
        (
            offsets[other] - buffers[member].base,
            offsets[other] + buffers[other].num_bytes - buffers[member].base,
            member,
        )
        for member in group
        for other in range(len(buffers))
        if offsets[other] >= 0 and buffers[other].overlaps(buffers[member])
    )
    while True:  # one pass is enough for a single buffer; members of a stack may push each other up
        moved = start
        for first, end, member in taken:
            if first < moved + buffers[member].num_bytes and moved < end:
                moved = end
        if moved == start:
            return start
        start = moved


def _improve(buffers: Sequence[Buffer], orders: Sequence[list[int]], best: list[int], bound: int) -> list[int]:
    """Search for an order of placing that gives a smaller arena; stop at the bound or when the moves are used up.

    A buffer that reaches the top can only come lower when it is placed before one that lives at the same time, so each
    move takes such a pair and moves the first before the second, or swaps them. What is not worse is kept. After a
    while without gain the climb starts again from the next starting order, shaken.
    """
    rng = np.random.default_rng(0)
    moves = MOVES // len(buffers)
    best_size, stalled, start = _size(buffers, best), STALL, 0
    current: list[int] = []
    offsets: list[int] = []
    for _ in range(moves):
        if stalled >= STALL:
            current = list(orders[start % len(orders)])
            for _ in range(start // len(orders)):
                _swap(current, *rng.integers(0, len(current), 2))
            offsets, stalled, start = _place(buffers, current), 0, start + 1
        trial = _moved(buffers, current, offsets, rng)
        placed = _place(buffers, trial)
        size, before = _size(buffers, placed), _size(buffers, offsets)
        stalled = 0 if size < before else stalled + 1
        if size <= before:
            current, offsets = trial, placed
        if size < best_size:
            best, best_size = placed, size
        if best_size == bound:
            break
    return best


def _moved(buffers: Sequence[Buffer], order: list[int], offsets: list[int], rng: np.random.Generator) -> list[int]:
    """Return an order in which a buffer that reaches the top comes before one that was placed before it."""
    size = _size(buffers, offsets)
    mover = int(rng.choice([n for n, b in enumerate(buffers) if offsets[n] + b.num_bytes == size]))
    place = order.index(mover)
    rivals = [other for other in range(place) if buffers[order[other]].overlaps(buffers[mover])]
    target = int(rng.choice(rivals)) if rivals and rng.random() < 0.9 else int(rng.integers(0, len(order)))
    trial = list(order)
    if rng.random() < 0.5:
        _swap(trial, place, target)
    else:
        trial.insert(target, trial.pop(place))
    return trial


def _swap(order: list[int], one: int, other: int) -> None:
    order[one], order[other] = order[other], order[one]
