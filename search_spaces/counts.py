"""Exact counts of a workload: MACs, parameters, weight bytes, activation traffic.

One multiply-accumulate is counted as one MAC (never "FLOPs"). Convolutions, transposed ones too, and linear layers
equal fvcore's count of the same network to the unit; products of two activations (attention), which fvcore leaves
out, are counted as rows x columns x inner length. Everything else (activations, pooling, additions) is no MAC.
"""

import functools
import math

from search_spaces.fusion import fuse_segment
from search_spaces.workload import Op, Segment, Workload

_TABLE_BYTES = 9
"""For each output channel: the scales of weight and bias, and the weight's zero point."""

_NORM_ROLES = frozenset({"norm_weight", "norm_bias", "norm_mean", "norm_var"})


def macs(workload: Workload) -> int:
    """Return the number of multiply-accumulates of one inference."""
    return workload.total(segment_macs)


def parameters(workload: Workload) -> int:
    """Return the number of trainable parameters, as `sum(p.numel() for p in module.parameters())` counts them."""
    return workload.total(segment_parameters)


def weight_bytes(workload: Workload) -> int:
    """Return the bytes of stored tensors in the file that ships, at the workload's dtypes.

    Batch normalization is folded: a convolution that had one stores a bias instead. Quantized operators store
    their weights in 8 bits, biases in 32, and in their tables for each output channel the scales of weight and bias
    and one zero point: 9 bytes. Blocks add up, so that a search can add up tables; what a file's writer stores besides
    for the sake of speed is counted by `latency_models.graph.stored_bytes`.
    """
    return workload.total(segment_weight_bytes)


def flash_bytes(workload: Workload, *, code_bytes: int = 0) -> int:
    """Return what a device's flash must hold: weights, biases and quantization tables, and `code_bytes` of program."""
    return weight_bytes(workload) + code_bytes


def activation_traffic_bytes(workload: Workload) -> int:
    """Return the bytes that operators read and write, weights apart; fused operators touch memory once."""
    return workload.total(segment_traffic_bytes)


def op_macs(op: Op) -> int:
    """Return the multiply-accumulates of one operator."""
    if op.kind == "conv":
        return op.output.elements * _fan_in(op)
    if op.kind == "conv_transpose":  # every input element is multiplied by all the weights that read it
        return op.input.elements * _fan_in(op)
    if op.kind == "linear":
        return op.output.elements * op.input.shape[-1]
    if op.kind == "matmul":
        stored_first = op.attribute("operand_positions", ()) == (0,)
        return op.output.elements * op.inputs[0].shape[-2 if stored_first else -1]
    return 0


def op_weight_bytes(op: Op) -> int:
    """Return the bytes one fused operator stores: see `weight_bytes`."""
    stored = sum(known.num_bytes for known in op.parameters if known.role not in _NORM_ROLES)
    weight = op.parameter("weight")
    if op.parameter("norm_mean") is not None and op.parameter("bias") is None:
        stored += 4 * op.output.shape[1]  # the folded bias
    elif op.kind == "batch_norm":
        stored += 8 * op.output.shape[1]  # factor and offset
    if op.dtype == "int8" and weight is not None:
        stored += _TABLE_BYTES * weight.shape[0]
    return stored


def _fan_in(op: Op) -> int:
    weight = op.parameter("weight")
    assert weight is not None, op
    return math.prod(weight.shape[1:])


@functools.lru_cache(maxsize=65536)
def segment_macs(segment: Segment) -> int:
    """Return the multiply-accumulates of one segment."""
    return sum(map(op_macs, segment.ops))


@functools.lru_cache(maxsize=65536)
def segment_parameters(segment: Segment) -> int:
    """Return the trainable parameters of one segment; a tied tensor counts once."""
    trainable = {known.name: known.elements for op in segment.ops for known in op.parameters if known.trainable}
    return sum(trainable.values())


@functools.lru_cache(maxsize=65536)
def segment_weight_bytes(segment: Segment) -> int:
    """Return the stored bytes of one segment, see `weight_bytes`."""
    seen: set[str] = set()
    total = 0
    for op in fuse_segment(segment).ops:
        names = {known.name for known in op.parameters}
        if names and names <= seen:
            continue
        seen |= names
        total += op_weight_bytes(op)
    return total


@functools.lru_cache(maxsize=65536)
def segment_traffic_bytes(segment: Segment) -> int:
    """Return the activation bytes one segment reads and writes."""
    return sum(
        value.num_bytes
        for op in fuse_segment(segment).ops
        if op.kind != "reshape"
        for value in (*op.inputs, *op.outputs)
    )
