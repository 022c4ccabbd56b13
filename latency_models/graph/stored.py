"""What a file stores and which tensors it computes, counted from the layers that would be written; no file is made.

`search_spaces.counts.weight_bytes` prices blocks one by one, which is what a search adds up in arrays. The file
differs by what its writer does for speed: depthwise layers padded to whole vectors, averages over a padded border
corrected by a map of factors, gathers left over from channel shuffles, zero points shared by all layers of one width.
For the same reason memory is planned on `file_workload`, whose maps are as wide as those of the file.
"""

from dataclasses import replace

import numpy as np

from latency_models.graph.int8 import prepared_network
from latency_models.graph.network import INPUT, Layer, Network
from latency_models.graph.pixels import is_stem
from latency_models.graph.stem import over_columns, pixel_copies
from search_spaces import counts
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.workload import Op, Segment, Value, Workload, sorted_attributes

_SCALES, _BIAS, _ZEROS = 8, 4, 5
"""Bytes for each output channel: the scales of weight and bias; the bias; both zero points, shared by width."""


def stored_bytes(workload: Workload, plan: QuantizationPlan | None) -> int:
    """Return the bytes of tensors that the file would store, of `int8_model` to about 1 %.

    Not followed to the byte: which activations share a scale, and constants of shapes.

    Args:
        workload: The network, fused or not.
        plan: The 8-bit scheme; None for the float file.
    """
    if plan is None:
        return counts.weight_bytes(with_precision(workload, None))
    network = prepared_network(workload, plan)
    layers = [_written(layer, network) for layer in network.layers]
    total = sum(_layer_bytes(layer, per_channel=plan.per_channel) for layer in layers)
    widths = {len(layer.filters) for layer in layers if _has_tables(layer)}
    tensors = {name for layer in layers if layer.quantized for name in layer.outputs}
    return total + _ZEROS * (sum(widths) if plan.per_channel else 1) + _BIAS * len(tensors)


def file_workload(workload: Workload, plan: QuantizationPlan | None) -> Workload:
    """Return the tensors that the file computes, as operators in the file's order: what its memory is planned on.

    Without a plan the fused workload. With one, the layers that `int8_model` writes: depthwise convolutions as wide as
    they are padded, tensors of layers that compute in float four bytes wide, channel moves folded. Weights are left
    out, and so are activations, which end in the layer before them.

    Args:
        workload: The network, fused or not.
        plan: The 8-bit scheme; None for the float file.
    """
    if plan is None:
        return with_precision(workload, None)
    network = prepared_network(workload, plan)
    first = Value(0, network.shapes[INPUT], plan.activation)
    values, ops = {INPUT: first}, []
    for layer in network.layers:
        dtype = plan.activation if layer.quantized else "float32"
        for name in layer.outputs:
            values[name] = Value(len(values), network.shapes[name], dtype)
        ops.append(
            Op(
                layer.kind,
                tuple(values[name] for name in layer.inputs),
                tuple(values[name] for name in layer.outputs),
                attributes=sorted_attributes(dict(layer.attributes)),
                dtype=dtype,
                scope=layer.scope,
            )
        )
    return Workload((Segment(first, values[network.output], tuple(ops)),), ("",))


def _written(layer: Layer, network: Network) -> Layer:
    """Return a layer as it is written: a first convolution reads several pixels as one of more channels."""
    if not (layer.quantized and is_stem(layer)):
        return layer
    copies = pixel_copies(layer, network.shapes[INPUT], network.shapes[layer.output])
    if not copies:
        return layer
    bias = None if layer.bias is None else np.tile(layer.bias, copies)
    return replace(over_columns(layer), bias=bias)


def _has_tables(layer: Layer) -> bool:
    return layer.quantized and layer.weight is not None and layer.kind in ("conv", "linear")


def _layer_bytes(layer: Layer, *, per_channel: bool) -> int:
    constants = [np.asarray(constant) for constant in layer.constants.values()]
    width = 8 if layer.kind == "gather" else 1 if layer.quantized else 4
    stored = sum(constant.size * width for constant in constants)
    if layer.weight is None:
        return stored
    if not _has_tables(layer):
        return stored + 4 * layer.weight.size + (0 if layer.bias is None else 4 * layer.bias.size)
    channels = len(layer.weight)
    return stored + layer.weight.size + _BIAS * channels + _SCALES * (channels if per_channel else 1)
