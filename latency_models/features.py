"""Physical features of a workload: for every kind of fused kernel its count, MACs, bytes moved and parameters.

A network's features are the sum over its operators, so a linear model on them is additive. Each operator adds the
same five amounts to several groups: its kind with its kernel size, its activation, its resolution class, and
whether its channels fill the lanes of the vector unit. The groups overlap on purpose: non-negative least squares
picks those that explain the device.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from search_spaces.counts import op_macs
from search_spaces.fusion import activation_of, fuse_segment
from search_spaces.workload import Op, Segment, Workload

AMOUNTS = ("count", "macs", "padded_macs", "elements", "parameters")
"""What an operator adds to each of its groups; padded MACs have channels rounded up to the lanes."""

Features = Mapping[str, float]


def features(workload: Workload, *, lanes: int) -> dict[str, float]:
    """Return the features of a network by name, for a vector unit of `lanes` channels."""
    total: defaultdict[str, float] = defaultdict(float)
    for segment in workload.segments:
        for name, amount in segment_features(segment, lanes).items():
            total[name] += amount
    return dict(total)


@functools.lru_cache(maxsize=65536)
def segment_features(segment: Segment, lanes: int) -> Features:
    """Return the features of one segment; do not change the mapping, it is shared."""
    total: defaultdict[str, float] = defaultdict(float)
    for op in fuse_segment(segment).ops:
        if op.kind == "reshape":
            continue
        amounts = _amounts(op, lanes)
        for group in _groups(op, lanes):
            for name, amount in zip(AMOUNTS, amounts, strict=True):
                if amount:
                    total[f"{group}:{name}"] += amount
    return dict(total)


def matrix(rows: Sequence[Features], columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return features as an array, `len(rows) x len(columns)`."""
    return np.array([[row.get(column, 0.0) for column in columns] for row in rows], dtype=np.float64)


def kernel_kind(op: Op) -> str:
    """Return the kind of kernel a runtime would pick: convolutions split into four."""
    if op.kind != "conv":
        return op.kind
    groups, channels = op.integer("groups"), op.input.shape[1]
    if groups == channels and groups > 1:
        return "depthwise"
    if groups > 1:
        return "grouped"
    if op.output.shape[2] * op.output.shape[3] == 1 and op.input.shape[2] * op.input.shape[3] == 1:
        return "vector"  # pointwise on one pixel, as in squeeze-excitation: a matrix-vector product
    return "pointwise" if op.integers("kernel") == (1, 1) else "dense"


def _amounts(op: Op, lanes: int) -> tuple[float, ...]:
    elements = sum(value.elements for value in (*op.inputs, *op.outputs))
    parameters = sum(known.elements for known in op.parameters if not known.role.startswith("norm_"))
    macs = op_macs(op)
    return (1.0, macs, macs * _padding(op, lanes), elements, parameters)


def _padding(op: Op, lanes: int) -> float:
    """Return by how much MACs grow when channels are rounded up to the lanes."""
    if op.kind not in ("conv", "linear") or lanes == 1:
        return 1.0
    axis = 1 if op.kind == "conv" else -1
    incoming, outgoing = op.input.shape[axis], op.output.shape[axis]
    if kernel_kind(op) == "depthwise":
        return _round_up(outgoing, lanes) / outgoing
    return _round_up(incoming, lanes) * _round_up(outgoing, lanes) / (incoming * outgoing)


def _round_up(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


def _groups(op: Op, lanes: int) -> tuple[str, ...]:
    kind = kernel_kind(op)
    names = [kind]
    if kind in ("depthwise", "dense", "grouped", "max_pool", "avg_pool"):
        names[0] = f"{kind}.k{op.integers('kernel')[0]}"
        names.append(f"{kind}.s{op.integers('stride')[0]}")
    activation = activation_of(op)
    if activation:
        names.append(f"activation.{activation}")
    if op.kind in ("conv", "linear"):
        axis = 1 if op.kind == "conv" else -1
        incoming = "full" if op.input.shape[axis] % lanes == 0 else "part"
        outgoing = "full" if op.output.shape[axis] % lanes == 0 else "part"
        names.append(f"{kind}.lanes.{incoming}.{outgoing}")
    if op.kind == "conv" and kind != "vector":
        side = op.output.shape[2] * op.output.shape[3]
        names.append(f"{kind}.size{min(int(math.log2(max(side, 1))) // 2, 5)}")
    return tuple(names)
