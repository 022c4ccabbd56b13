"""Layers whose 8-bit kernel is slow or missing, rewritten as depthwise convolutions."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latency_models.graph.depthwise_padding import VECTOR
from latency_models.graph.network import Layer, Network
from search_spaces.architecture import Shape
from search_spaces.workload import Attribute


def use_depthwise_kernels(network: Network) -> Network:
    """Return the network with 8-bit average pooling and normalization as depthwise convolutions.

    Pooling is 3 to 5 times faster so, normalization 1.2 times if its channels fill the vectors of the kernel; else it
    stays as it is.
    """
    layers: list[Layer] = []
    shapes: dict[str, Shape] = {}
    for layer in network.layers:
        shape = network.shapes[layer.inputs[0]]
        if layer.quantized and layer.kind == "avg_pool":
            for made in _pool(layer, shape, network.shapes[layer.output]):
                layers.append(made)
                shapes[made.output] = network.shapes[layer.output]
        elif layer.quantized and layer.kind == "batch_norm" and len(shape) == 4 and shape[1] % VECTOR == 0:
            layers.append(_norm(layer))
        else:
            layers.append(layer)
    return network.replace(layers, shapes)


def _norm(layer: Layer) -> Layer:
    channels = len(layer.filters)
    attributes: dict[str, Attribute] = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "groups": channels}
    return replace(layer, kind="conv", weight=layer.filters.reshape(channels, 1, 1, 1), attributes=attributes)


def _pool(layer: Layer, source: Shape, target: Shape) -> Iterator[Layer]:
    """Yield a depthwise convolution and, where padding does not count, a product that mends the border."""
    channels, kernel = source[1], layer.integers("kernel")
    weight = np.full((channels, 1, *kernel), 1.0 / math.prod(kernel), np.float32)
    attributes: dict[str, Attribute] = {
        "stride": tuple(layer.integers("stride")),
        "pads": tuple(layer.integers("pads")),
        "dilation": (1, 1),
        "groups": channels,
    }
    conv = replace(layer, kind="conv", weight=weight, bias=np.zeros(channels, np.float32), attributes=attributes)
    if layer.attributes["count_padding"] or not any(layer.integers("pads")):
        yield conv
        return
    total = f"{layer.output}/total"
    yield replace(conv, outputs=(total,), activation=None)
    factors = math.prod(kernel) / _window_sizes(layer, source, target)
    yield replace(
        layer,
        kind="mul",
        inputs=(total,),
        attributes={"keeps_range": True},
        constants={1: factors.astype(np.float32)[np.newaxis, np.newaxis]},
    )


def _window_sizes(layer: Layer, source: Shape, target: Shape) -> npt.NDArray[np.float64]:
    """Return how many pixels of the map each window sees, `height x width` of the output."""
    counts = []
    pads = layer.integers("pads")
    for axis in (0, 1):
        kernel, stride = layer.integers("kernel")[axis], layer.integers("stride")[axis]
        first = np.arange(target[2 + axis]) * stride - pads[axis]
        counts.append(np.minimum(first + kernel, source[2 + axis]) - np.maximum(first, 0))
    rows, columns = counts
    return np.outer(rows, columns).astype(np.float64)
