"""Channels of depthwise convolutions, padded with zeros to whole vectors of the 8-bit kernel."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from latency_models.graph.groups import Groups
from latency_models.graph.network import INPUT, Layer, Network
from latency_models.graph.weights import Array
from search_spaces.architecture import Shape
from search_spaces.workload import ACTIVATIONS

VECTOR = 16
"""Channels the 8-bit depthwise kernel of onnxruntime on x86 takes at once; with fewer it is up to 1.5 times slower."""

_TIES = frozenset({"max_pool", "avg_pool", "global_avg_pool", "batch_norm", "upsample", "add", "mul"}) | ACTIVATIONS
"""Kinds whose output channel depends on the same channel of their inputs and stays harmless where that is zero."""


def pad_depthwise(network: Network, multiple: int = VECTOR) -> Network:
    """Return the network with zero channels added wherever depthwise layers gain and only dense layers could see them.

    Tensors tied channel by channel form a group. It is padded if dense layers make and read all of it: they get zero
    filters and zero input columns, so the result is the same bit by bit.
    """
    extra = _missing_channels(network, multiple)
    layers = [_padded(layer, extra) for layer in network.layers]
    shapes: dict[str, Shape] = {}
    for name, amount in extra.items():
        shape = network.shapes[name]
        shapes[name] = (shape[0], shape[1] + amount, *shape[2:])
    return network.replace((_reshaped(layer, shapes) for layer in layers), shapes)


def _missing_channels(network: Network, multiple: int) -> Mapping[str, int]:
    """Return how many channels every padded tensor gets."""
    tied, blocked, wanted = Groups(), {INPUT, network.output}, []
    for layer in network.layers:
        if layer.is_dense:
            continue
        if not _ties(layer, network.shapes):
            blocked.update((*layer.inputs, *layer.outputs))
            continue
        for name in layer.inputs:
            tied.join(layer.output, name)
        if layer.is_depthwise:
            wanted.append(layer.output)
    forbidden = {tied.root(name) for name in blocked}
    amounts = {tied.root(name): -network.shapes[name][1] % multiple for name in wanted}
    names = {name for layer in network.layers for name in (*layer.inputs, *layer.outputs)}
    return {
        name: amounts[tied.root(name)]
        for name in names
        if tied.root(name) not in forbidden and amounts.get(tied.root(name))
    }


def _ties(layer: Layer, shapes: Mapping[str, Shape]) -> bool:
    if layer.kind == "reshape":
        source, target = shapes[layer.inputs[0]], shapes[layer.output]
        return (*source, 1, 1)[:4] == (*target, 1, 1)[:4] and len(source) in (2, 4) and len(target) in (2, 4)
    if not (layer.is_depthwise or layer.kind in _TIES):
        return False
    channels = shapes[layer.output][1] if len(shapes[layer.output]) in (2, 4) else 0
    same = all(shapes[name][1:2] == (channels,) for name in layer.inputs)
    return same and all(constant.size == 1 for constant in layer.constants.values())


def _padded(layer: Layer, extra: Mapping[str, int]) -> Layer:
    before, after = extra.get(layer.inputs[0], 0), extra.get(layer.output, 0)
    if layer.weight is None or not (before or after):
        return layer
    bias = None if layer.bias is None else _grown(layer.bias, after)
    if layer.is_dense:
        return replace(layer, weight=_grown(layer.filters, after, before), bias=bias)
    attributes = layer.attributes if layer.kind != "conv" else layer.with_attributes(groups=layer.groups + after)
    return replace(layer, weight=_grown(layer.filters, after), bias=bias, attributes=attributes)


def _grown(array: Array, *amounts: int) -> Array:
    """Return `array` with zeros appended along its first axes."""
    sizes = (*(size + amount for size, amount in zip(array.shape, amounts, strict=False)), *array.shape[len(amounts) :])
    grown = np.zeros(sizes, array.dtype)
    grown[tuple(map(slice, array.shape))] = array
    return grown


def _reshaped(layer: Layer, shapes: Mapping[str, Shape]) -> Layer:
    if layer.kind == "reshape" and layer.output in shapes:
        return replace(layer, attributes={"shape": shapes[layer.output]})
    return layer
