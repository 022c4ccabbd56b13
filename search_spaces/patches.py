"""Patch-based inference of the first blocks, as MCUNetV2 does it (Lin et al. 2021, arXiv:2110.15352, section 3).

The first blocks of a small network hold the largest maps. Computed patch by patch, only what one patch of their
output depends on is alive, at the price of computing the borders of neighbouring patches again. Every region is found
backward from a patch of the stage's output, operator by operator, and cut at the edge of the map; memory and MACs are
then those of the operators at the sizes of their regions, counted as everywhere else.

Differences from the paper: the number of patches is a plain search over few values rather than part of the network's
genotype, the image may stay in memory whole (the paper decodes a part of a JPEG at a time), and receptive fields are
not redistributed; a space that wants that offers smaller kernels early.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from search_spaces import counts
from search_spaces.fusion import fuse, fuse_segment
from search_spaces.memory import Buffer, bound_bytes, live_buffers, peak_bytes, segment_peak_bytes
from search_spaces.workload import ACTIVATIONS, Op, Segment, Value, Workload

Region = tuple[tuple[int, int], tuple[int, int]]
"""First and one-past-last row, first and one-past-last column."""

_WINDOWED = frozenset({"conv", "avg_pool", "max_pool"})
_POINTWISE = ACTIVATIONS | {
    "batch_norm", "add", "sub", "mul", "div", "pow", "exp", "sqrt", "reciprocal", "abs", "neg", "channel_shuffle",
    "elementwise",
}  # fmt: skip
_ALONG_CHANNELS = frozenset({"concat", "split", "slice", "gather"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPlan:
    """The first blocks computed patch by patch, and what that costs.

    Attributes:
        segments: Number of first blocks computed so; 0 where the whole network runs operator by operator.
        patches: Patches along each side of the last such block's output.
        stage_bytes: Liveness bound while patches are computed: the whole output, one patch of everything else, and
            the image where it is kept.
        rest_bytes: Liveness bound of the other blocks.
        macs: Multiply-accumulates of the network, with what neighbouring patches both compute.
        plain_macs: Those without patches.
    """

    segments: int
    patches: int
    stage_bytes: int
    rest_bytes: int
    macs: int
    plain_macs: int

    @property
    def peak_bytes(self) -> int:
        """Liveness bound of the network."""
        return max(self.stage_bytes, self.rest_bytes)

    @property
    def overhead(self) -> float:
        """Share of MACs that is added."""
        return self.macs / self.plain_macs - 1.0

    @property
    def words(self) -> str:
        """What is computed in patches, for the source of a figure."""
        return f"first {self.segments} blocks in {self.patches} x {self.patches} patches"


def patchable_segments(workload: Workload) -> int:
    """Return how many first blocks can be computed patch by patch: up to the first that needs a whole map at once."""
    for number, segment in enumerate(workload.segments):
        if any(_refusal(op) for op in fuse_segment(segment).ops):
            return number
    return len(workload.segments)


def plan_patches(
    workload: Workload, *, segments: int, patches: int, in_place: bool = False, keep_image: bool = True
) -> PatchPlan:
    """Return the costs of the network with its first blocks computed patch by patch.

    Args:
        workload: The network, at the precision that ships.
        segments: Number of first blocks; at least 1.
        patches: Patches along each side of the stage's output.
        in_place: Whether depthwise convolutions overwrite their input; see `memory.live_buffers`.
        keep_image: Whether the whole image lies in memory; False where parts of it are read as needed.

    Raises:
        ValueError: Fewer blocks than asked for, an operator that needs a whole map, or more patches than rows.
    """
    if not 1 <= segments <= len(workload.segments):
        raise ValueError(f"segments must lie in 1 to {len(workload.segments)}, got {segments=}")
    stage = _joined(Workload(workload.segments[:segments], workload.scopes[:segments]))
    for op in stage.ops:
        reason = _refusal(op)
        if reason:
            raise ValueError(f"{op.scope or op.kind} cannot be computed patch by patch: {reason}")
    if len(stage.output.shape) != 4 or min(stage.output.shape[2:]) < patches or patches < 1:
        raise ValueError(f"{patches=} a side do not fit the stage's output of shape {stage.output.shape}")
    parts = [_part(stage, region) for region in _grid(stage.output, patches)]
    rest = workload.segments[segments:]
    return PatchPlan(
        segments=segments,
        patches=patches,
        stage_bytes=max(_part_bytes(stage, part, in_place=in_place, keep_image=keep_image) for part in parts),
        rest_bytes=max((segment_peak_bytes(segment, in_place) for segment in rest), default=0),
        macs=sum(counts.op_macs(op) for part in parts for op in part.ops) + sum(map(counts.segment_macs, rest)),
        plain_macs=counts.macs(workload),
    )


def best_patches(
    workload: Workload,
    *,
    sides: Sequence[int] = (2, 3, 4),
    max_overhead: float = 0.3,
    in_place: bool = False,
    keep_image: bool = True,
) -> PatchPlan:
    """Return the plan of least peak memory, of those the one with fewest MACs; no patches where they do not help.

    Args:
        workload: The network, at the precision that ships.
        sides: Numbers of patches along a side that are tried.
        max_overhead: Greatest share of added MACs.
        in_place: Whether depthwise convolutions overwrite their input.
        keep_image: Whether the whole image lies in memory.
    """
    plain = max(segment_peak_bytes(segment, in_place) for segment in workload.segments)
    macs = counts.macs(workload)
    found = [PatchPlan(segments=0, patches=1, stage_bytes=0, rest_bytes=plain, macs=macs, plain_macs=macs)]
    for segments in range(1, patchable_segments(workload) + 1):
        shape = workload.segments[segments - 1].output.shape
        found += [
            plan_patches(workload, segments=segments, patches=side, in_place=in_place, keep_image=keep_image)
            for side in sides
            if min(shape[2:], default=0) >= side
        ]
    return min((plan for plan in found if plan.overhead <= max_overhead), key=lambda plan: (plan.peak_bytes, plan.macs))


def patches_above(workload: Workload, limit: float, *, in_place: bool = False) -> PatchPlan | None:
    """Return the best patches of a network that needs more than `limit` bytes without; None where it fits or none help.

    Patches compute borders again, so a network that fits runs without them.

    Args:
        workload: The network, at the precision that ships.
        limit: Bytes of activations that fit.
        in_place: Whether depthwise convolutions overwrite their input.
    """
    if peak_bytes(workload, in_place=in_place) <= limit:
        return None
    plan = best_patches(workload, in_place=in_place)
    return plan if plan.segments else None


@functools.lru_cache(maxsize=1024)
def _joined(workload: Workload) -> Segment:
    return fuse(workload).flat()


def _refusal(op: Op) -> str:
    """Return why an operator needs more than a region of its inputs; empty where it does not."""
    if any(len(value.shape) != 4 for value in (*op.inputs, *op.outputs)):
        return "it is no map of rows and columns"
    if op.kind in _ALONG_CHANNELS:
        return "" if op.integer("axis") == 1 else f"{op.kind} cuts through rows or columns"
    if op.kind not in _WINDOWED | _POINTWISE:
        return f"{op.kind} needs the whole map"
    if op.kind in _POINTWISE and any(value.shape[2:] != op.output.shape[2:] for value in op.inputs):
        return f"{op.kind} takes a value that depends on the whole map"
    return ""


def _grid(value: Value, patches: int) -> Iterable[Region]:
    rows, columns = (
        [(size * number // patches, size * (number + 1) // patches) for number in range(patches)]
        for size in value.shape[2:]
    )
    return [(row, column) for row in rows for column in columns]


def _part(stage: Segment, region: Region) -> Segment:
    """Return the stage at the sizes of one patch: every value as large as what the patch needs of it."""
    needed: dict[int, Region] = {stage.output.id: region}
    for op in reversed(stage.ops):
        wanted = [needed[value.id] for value in op.outputs if value.id in needed]
        if not wanted:
            continue
        hull = functools.reduce(_union, wanted)
        needed |= {value.id: hull for value in op.outputs}
        for value in op.inputs:
            source = _source(op, hull, value) if op.kind in _WINDOWED else hull
            needed[value.id] = _union(needed[value.id], source) if value.id in needed else source

    def cut(value: Value) -> Value:
        sides = tuple(last - first for first, last in needed[value.id])
        return replace(value, shape=(*value.shape[:2], *sides))

    ops = tuple(
        replace(op, inputs=tuple(map(cut, op.inputs)), outputs=tuple(map(cut, op.outputs)))
        for op in stage.ops
        if op.output.id in needed
    )
    needed.setdefault(stage.input.id, region)
    return Segment(cut(stage.input), cut(stage.output), ops)


def _source(op: Op, region: Region, value: Value) -> Region:
    """Return the region of an input that a region of a windowed operator's output reads, cut at the map's edge."""
    dilation = op.integers("dilation") if op.kind == "conv" else (1, 1)
    found = []
    for axis, (first, last) in enumerate(region):
        kernel, stride, padding = (op.integers(name)[axis] for name in ("kernel", "stride", "padding"))
        start = first * stride - padding
        stop = (last - 1) * stride - padding + dilation[axis] * (kernel - 1) + 1
        size = value.shape[2 + axis]
        start = min(max(start, 0), size - 1)
        found.append((start, max(min(stop, size), start + 1)))
    return (found[0], found[1])


def _union(one: Region, other: Region) -> Region:
    rows, columns = ((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(one, other, strict=True))
    return (rows, columns)


def _part_bytes(stage: Segment, part: Segment, *, in_place: bool, keep_image: bool) -> int:
    """Return the bound while one patch is computed: the stage's output is whole, and so is the image if it is kept."""
    ends = frozenset({stage.input.id, stage.output.id})
    whole = {stage.output.id: stage.output.num_bytes}
    if keep_image:
        whole[stage.input.id] = stage.input.num_bytes
    buffers = []
    for buffer in live_buffers(part, alignment=1, in_place=in_place, fixed=ends):
        size = max((whole[value] for value in buffer.values if value in whole), default=None)
        last = max(len(part.ops) - 1, 0)
        buffers.append(buffer if size is None else Buffer(buffer.values, size, 0, last))
    return bound_bytes(buffers)
