"""Fusion: the operators that every runtime merges, merged.

Batch normalization goes into the convolution or linear layer before it, an activation into the operator that
feeds it alone, and reshape-transpose-reshape becomes one channel shuffle. A fused operator keeps the parameters
of all its parts (`norm_*` beside `weight`), so that a writer with real weights can fold them.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from search_spaces.workload import ACTIVATIONS, Op, Segment, Workload, sorted_attributes

_TAKES_NORM = frozenset({"conv", "conv_transpose", "linear"})
_TAKES_ACTIVATION = frozenset({"conv", "conv_transpose", "linear", "add", "batch_norm"})


def fuse(workload: Workload) -> Workload:
    """Return the workload with fused operators; the shapes of input and output stay."""
    return workload.map(fuse_segment)


@functools.lru_cache(maxsize=65536)
def fuse_segment(segment: Segment) -> Segment:
    """Return one segment fused."""
    output = segment.output.id
    ops = _merge_into_producers(segment.ops, output, _fold_norm)
    ops = _merge_into_producers(ops, output, _take_activation)
    return Segment(segment.input, segment.output, tuple(_find_shuffles(ops, output)))


def activation_of(op: Op) -> str:
    """Return the kind of activation fused into `op`, or "" for none."""
    return str(op.attribute("activation", ""))


def _merge_into_producers(ops: Sequence[Op], output: int, merge: Callable[[Op, Op], Op | None]) -> list[Op]:
    """Join each operator to the producer of its only input where `merge` can and nobody else reads that."""
    readers = _readers(ops, output)
    merged: list[Op] = []
    place: dict[int, int] = {}  # value id -> index in `merged` of the operator that writes it
    for op in ops:
        producer = place.get(op.input.id) if len(op.inputs) == 1 else None
        if producer is not None and readers[op.input.id] == 1:
            joined = merge(merged[producer], op)
            if joined is not None:
                merged[producer] = joined
                place[joined.output.id] = producer
                continue
        merged.append(op)
        place.update((value.id, len(merged) - 1) for value in op.outputs)
    return merged


def _fold_norm(producer: Op, op: Op) -> Op | None:
    if op.kind != "batch_norm" or producer.kind not in _TAKES_NORM or producer.parameter("norm_mean"):
        return None
    return replace(
        producer,
        outputs=op.outputs,
        parameters=producer.parameters + op.parameters,
        attributes=sorted_attributes({**dict(producer.attributes), "norm_eps": op.number("eps")}),
    )


def _take_activation(producer: Op, op: Op) -> Op | None:
    if op.kind not in ACTIVATIONS or producer.kind not in _TAKES_ACTIVATION or activation_of(producer):
        return None
    limits = {f"activation_{name}": value for name, value in op.attributes}
    attributes = {**dict(producer.attributes), "activation": op.kind, **limits}
    return replace(producer, outputs=op.outputs, attributes=sorted_attributes(attributes))


def _find_shuffles(ops: Sequence[Op], output: int) -> list[Op]:
    """Replace reshape (n, g, c/g, h, w), transpose of axes 1 and 2, reshape back by one channel shuffle."""
    readers = _readers(ops, output)
    producers = {value.id: op for op in ops for value in op.outputs}
    shuffles: dict[int, Op] = {}  # id of the last reshape's output -> shuffle
    inner: set[int] = set()
    for last in ops:
        if last.kind != "reshape" or len(last.output.shape) != 4:
            continue
        middle = producers.get(last.input.id)
        first = producers.get(middle.input.id) if middle and middle.kind == "transpose" else None
        if middle is None or first is None or first.kind != "reshape" or len(first.output.shape) != 5:
            continue
        alone = readers[last.input.id] == 1 and readers[middle.input.id] == 1
        if alone and middle.integers("order") == (0, 2, 1, 3, 4) and first.input.shape == last.output.shape:
            groups = first.output.shape[1]
            attributes = sorted_attributes({"groups": groups})
            shuffles[last.output.id] = Op(
                "channel_shuffle", first.inputs, last.outputs, (), attributes, last.dtype, last.scope
            )
            inner |= {middle.output.id, first.output.id}
    return [shuffles.get(op.output.id, op) for op in ops if op.output.id not in inner]


def _readers(ops: Sequence[Op], output: int) -> Counter[int]:
    """Count who reads each value; the segment's output has one reader outside."""
    return Counter([value.id for op in ops for value in op.inputs] + [output])
