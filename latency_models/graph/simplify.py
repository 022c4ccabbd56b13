"""Rewrites that hold for both precisions, all exact: fewer layers, in the forms that runtimes fuse."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from latency_models.graph.network import Layer, Network, activation
from latency_models.graph.weights import Array, scale_channels
from search_spaces.architecture import Shape
from search_spaces.workload import ACTIVATIONS

_TAKES_ACTIVATION = frozenset({"conv", "linear", "batch_norm", "add", "mul", "avg_pool"})
_TAKES_CONSTANT = frozenset({"conv", "linear", "batch_norm"})

Merge = Callable[[Network, Layer, Layer], Layer | None]


def simplify(network: Network) -> Network:
    """Return the network with constants, normalizations, activations and paddings moved into the layers before them.

    Fusion of the workload stops at the borders of blocks, this does not: the activation that begins a block goes
    into the convolution that ends the one before.
    """
    network = network.replace(map(_plain_constant, network.layers))
    network = network.replace(_pool_whole_map(network, layer) for layer in network.layers)
    network = _activations_before_concats(_merge_into_producers(network))
    return _merge_reshapes(_fold_pads(network))


def _plain_constant(layer: Layer) -> Layer:
    """Turn a difference or quotient with a stored second operand into a sum or product."""
    if 1 not in layer.constants or layer.kind not in ("sub", "div"):
        return layer
    kind, constant = ("add", -layer.constants[1]) if layer.kind == "sub" else ("mul", 1.0 / layer.constants[1])
    return replace(layer, kind=kind, constants={1: constant.astype(np.float32)})


def _pool_whole_map(network: Network, layer: Layer) -> Layer:
    """Turn average pooling with a window of the whole map into global pooling, which has a kernel of its own."""
    if layer.kind != "avg_pool" or any(layer.integers("pads")):
        return layer
    if layer.integers("kernel") != network.shapes[layer.inputs[0]][2:]:
        return layer
    return replace(layer, kind="global_avg_pool", attributes={"keepdim": True})


def _merge_into_producers(network: Network) -> Network:
    """Join each layer to the producer of its only input where a rule can and nobody else reads that."""
    readers = network.readers()
    merged: list[Layer] = []
    place: dict[str, int] = {}
    for layer in network.layers:
        producer = place.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
        if producer is not None and readers[layer.inputs[0]] == 1 and merged[producer].activation is None:
            joined = next(filter(None, (merge(network, merged[producer], layer) for merge in _MERGES)), None)
            if joined is not None:
                merged[producer] = replace(joined, outputs=layer.outputs)
                place[layer.output] = producer
                continue
        merged.append(layer)
        place.update((name, len(merged) - 1) for name in layer.outputs)
    return network.replace(merged)


def _take_norm(_network: Network, producer: Layer, layer: Layer) -> Layer | None:
    if (
        layer.kind != "batch_norm"
        or producer.kind not in _TAKES_CONSTANT
        or len(producer.filters) != len(layer.filters)
    ):
        return None
    return replace(_scaled(producer, layer.filters, layer.bias), activation=layer.activation)


def _take_constant(network: Network, producer: Layer, layer: Layer) -> Layer | None:
    if producer.kind not in _TAKES_CONSTANT or layer.kind not in ("add", "mul") or len(layer.constants) != 1:
        return None
    (constant,) = layer.constants.values()
    channels = _by_channel(constant, network.shapes[layer.output])
    if channels is None or network.shapes[producer.output] != network.shapes[layer.output]:
        return None
    one = np.ones_like(channels)
    scaled = _scaled(producer, channels, None) if layer.kind == "mul" else _scaled(producer, one, channels)
    return replace(scaled, activation=layer.activation)


def _take_activation(_network: Network, producer: Layer, layer: Layer) -> Layer | None:
    if layer.kind not in ACTIVATIONS or producer.kind not in _TAKES_ACTIVATION:
        return None
    return replace(producer, activation=activation(layer.kind, layer.attributes))


_MERGES: tuple[Merge, ...] = (_take_norm, _take_constant, _take_activation)


def _scaled(layer: Layer, factor: Array, shift: Array | None) -> Layer:
    """Return a layer with weights that multiplies its output channels by `factor`, then adds `shift`."""
    bias = np.zeros(len(layer.filters), np.float32) if layer.bias is None else layer.bias
    return replace(
        layer,
        weight=scale_channels(layer.filters, factor).astype(np.float32),
        bias=(bias * factor + (0.0 if shift is None else shift)).astype(np.float32),
    )


def _by_channel(constant: Array, shape: Shape) -> Array | None:
    """Return a constant as one value per channel of a tensor of `shape`, or None where it varies otherwise."""
    axis = 1 if len(shape) > 1 else 0
    padded = (
        constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape) if constant.ndim <= len(shape) else None
    )
    if padded is None or math.prod(padded.shape) != padded.shape[axis]:
        return None
    if padded.shape[axis] not in (1, shape[axis]):
        return None
    return np.broadcast_to(padded.reshape(-1), (shape[axis],))


def _activations_before_concats(network: Network) -> Network:
    """Apply a cut to a range before a concatenation where every layer that feeds it takes it for nothing."""
    readers = network.readers()
    producers = {name: layer for layer in network.layers for name in layer.outputs}
    moved: dict[str, Layer] = {}  # tensor -> the activation that goes behind it
    dropped: dict[str, str] = {}  # output of an activation -> output of the concatenation that takes its place
    for layer in network.layers:
        concat = producers.get(layer.inputs[0]) if layer.kind == "clip" else None
        if concat is None or concat.kind != "concat" or concat.constants or readers[concat.output] != 1:
            continue
        feeding = [producers.get(name) for name in concat.inputs]
        if all(
            before is not None
            and before.kind in _TAKES_ACTIVATION
            and before.activation is None
            and readers[before.output] == 1
            for before in feeding
        ):
            moved.update((name, layer) for name in concat.inputs)
            dropped[layer.output] = concat.output
    if not dropped:
        return network
    renamed = {old: new for new, old in dropped.items()}
    layers = []
    for layer in network.layers:
        if layer.output in dropped:
            continue
        cut = moved.get(layer.output)
        if cut is not None:
            layer = replace(layer, activation=activation(cut.kind, cut.attributes))
        layers.append(replace(layer, outputs=tuple(renamed.get(name, name) for name in layer.outputs)))
    return network.replace(layers)


def _fold_pads(network: Network) -> Network:
    """Let convolutions pad by themselves where zeros around the map are all they read."""
    other_readers = {name for layer in network.layers if layer.kind != "conv" for name in layer.inputs}
    pads = {
        layer.output: layer
        for layer in network.layers
        if layer.kind == "pad" and _surrounds_map(layer) and layer.output not in (*other_readers, network.output)
    }
    if not pads:
        return network
    layers = []
    for layer in network.layers:
        if layer.output in pads:
            continue
        pad = pads.get(layer.inputs[0])
        if pad is not None:
            _, _, top, left, _, _, bottom, right = pad.integers("pads")
            wider = tuple(a + b for a, b in zip(layer.integers("pads"), (top, left, bottom, right), strict=True))
            layer = replace(layer, inputs=pad.inputs, attributes=layer.with_attributes(pads=wider))
        layers.append(layer)
    return network.replace(layers)


def _surrounds_map(pad: Layer) -> bool:
    pads = pad.integers("pads")
    spatial = len(pads) == 8 and not any((*pads[:2], *pads[4:6]))
    return spatial and min(pads) >= 0 and pad.number("value") == 0.0


def _merge_reshapes(network: Network) -> Network:
    """Let a reshape of a reshape read what the first one reads, and drop those that change nothing."""
    origin: dict[str, str] = {}  # output of a reshape -> the tensor whose elements it holds
    same: dict[str, str] = {}  # tensor -> an equal one that stays
    layers = []
    for layer in network.layers:
        layer = layer.reading(same.get(name, name) for name in layer.inputs)
        if layer.kind == "reshape":
            source = origin.get(layer.inputs[0], layer.inputs[0])
            if network.shapes[source] == network.shapes[layer.output] and layer.output != network.output:
                same[layer.output] = source
                continue
            origin[layer.output] = source
            layer = layer.reading([source])
        layers.append(layer)
    read = {name for layer in layers for name in layer.inputs} | {network.output}
    return network.replace(layer for layer in layers if layer.kind != "reshape" or layer.output in read)
