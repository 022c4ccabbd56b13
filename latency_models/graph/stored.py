"""What an int8 file stores, counted from the layers that would be written; no file is made.

`search_spaces.counts.weight_bytes` prices blocks one by one, which is what a search adds up in arrays. The file
differs by what its writer does for speed: depthwise layers padded to whole vectors, averages over a padded border
corrected by a map of factors, gathers left over from channel shuffles, zero points shared by all layers of one width.
"""

from dataclasses import replace

import numpy as np

from latency_models.graph.int8 import prepared_network
from latency_models.graph.network import INPUT, Layer, Network
from latency_models.graph.pixels import is_stem
from latency_models.graph.stem import over_columns, pixel_copies
from search_spaces.precision import QuantizationPlan
from search_spaces.workload import Workload

_SCALES, _BIAS, _ZEROS = 8, 4, 5
"""Bytes for each output channel: the scales of weight and bias; the bias; both zero points, shared by width."""


def stored_bytes(workload: Workload, plan: QuantizationPlan) -> int:
    """Return the bytes of tensors that `int8_model` would store, to about 1 %.

    Not followed to the byte: which activations share a scale, and constants of shapes.

    Args:
        workload: The network, fused or not.
        plan: The 8-bit scheme.
    """
    network = prepared_network(workload, plan)
    layers = [_written(layer, network) for layer in network.layers]
    total = sum(_layer_bytes(layer, per_channel=plan.per_channel) for layer in layers)
    widths = {len(layer.filters) for layer in layers if _has_tables(layer)}
    tensors = {name for layer in layers if layer.quantized for name in layer.outputs}
    return total + _ZEROS * (sum(widths) if plan.per_channel else 1) + _BIAS * len(tensors)


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
