"""The first convolution of an 8-bit file, which reads the image as bytes."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latency_models.graph.int8_forms import bias_shift, finish_activation, written_name
from latency_models.graph.network import Layer
from latency_models.graph.operators import write
from latency_models.graph.pixels import PIXELS, Pixels
from latency_models.graph.tensors import Tensors
from latency_models.graph.weights import Array
from search_spaces.architecture import Shape

COLUMNS = 4
"""Pixels of a row that a narrow first convolution reads as channels of one, since its kernel wants multiples of 4."""


def write_stem(t: Tensors, pixels: Pixels, layer: Layer, shape: Shape, target: Shape) -> None:
    """Add the nodes of a first convolution.

    Normalization goes into its weights; 1 to 3 channels are read as `COLUMNS` pixels at a time, which is the same
    convolution with other strides and 1.4 to 2.1 times faster; the border is padded with mean pixels.

    Args:
        t: The tensors so far, `PIXELS` among them.
        pixels: What those mean.
        layer: The convolution.
        shape: Of the network's input.
        target: Of the convolution's output.
    """
    weight = layer.filters * pixels.factor.reshape(1, -1, 1, 1)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias
    bias = bias - np.einsum("ocij,c->o", layer.filters.astype(np.float64), pixels.offset) + bias_shift(layer)
    layer = replace(layer, weight=weight.astype(np.float32))
    copies = pixel_copies(layer, shape, target)
    source, last = t.bytes(PIXELS), pixels.last
    if (copies or pixels.padding is not None) and not last:
        source, last = t.e.op("Transpose", [source], perm=(0, 2, 3, 1)), True
    if copies:
        layer = over_columns(layer)
        bias = np.tile(bias, copies)
        shape = (1, shape[1] * COLUMNS, shape[2], shape[3] // COLUMNS)
        source = t.e.op("Reshape", [source, t.e.shape((1, *shape[2:], shape[1]))])
        target = (1, target[1] * copies, target[2], target[3] // copies)
    if pixels.padding is not None:
        source, layer = _framed(t, layer, source, pixels.padding, shape, target)
    if last:
        source = t.e.op("Transpose", [source], perm=(0, 3, 1, 2))
    image = t.dequantized(source, pixels.params)
    name = written_name(layer)
    stored = t.weights(layer.filters, bias, pixels.params.read_scale)
    write(t.e, layer, [image, *stored], [f"{name}/float"])
    t.write(f"{name}/float", name)
    if copies:
        t.put_bytes(name, _one_pixel_each(t, t.bytes(name), target, copies))
    finish_activation(t, layer)


def pixel_copies(layer: Layer, shape: Shape, target: Shape) -> int:
    """Return how many output pixels one group of columns gives; 0 where columns are not grouped."""
    stride = layer.integers("stride")[1]
    fits = shape[1] % COLUMNS and shape[3] % COLUMNS == 0 and COLUMNS % stride == 0
    if not fits or layer.integers("dilation") != (1, 1) or target[3] * stride != shape[3]:
        return 0
    return COLUMNS // stride


def over_columns(layer: Layer) -> Layer:
    """Return the convolution over groups of columns; its bias stays as it was."""
    (down, across), (top, left, bottom, _) = layer.integers("stride"), layer.integers("pads")
    weight, before, after = group_columns(layer.filters, COLUMNS, across, left)
    attributes = layer.with_attributes(stride=(down, 1), pads=(top, before, bottom, after))
    return replace(layer, weight=weight, attributes=attributes)


def group_columns(weight: Array, columns: int, stride: int, pad: int) -> tuple[Array, int, int]:
    """Return a weight over groups of `columns` pixels, and the groups to pad left and right.

    A weight of `out x in x height x width` becomes `(columns / stride * out) x (columns * in) x height x groups`.
    Output channel j * out + o is channel o of the j-th pixel of a group, input channel p * in + c channel c of its
    p-th pixel.
    """
    outputs, inputs, height, width = weight.shape
    taps = [(j, k, stride * j + k - pad) for j in range(columns // stride) for k in range(width)]
    first, last = min(tap[2] for tap in taps) // columns, max(tap[2] for tap in taps) // columns
    grouped = np.zeros((columns // stride * outputs, columns * inputs, height, last - first + 1), weight.dtype)
    for j, k, column in taps:
        place = column % columns * inputs
        rows = grouped[j * outputs : (j + 1) * outputs, place : place + inputs]
        rows[:, :, :, column // columns - first] = weight[:, :, :, k]
    return grouped, -first, last


def _framed(
    t: Tensors, layer: Layer, source: str, padding: npt.NDArray[np.int64], shape: Shape, target: Shape
) -> tuple[str, Layer]:
    """Return the bytes, channels last, with a frame of mean pixels, and the convolution without padding.

    The frame is no wider than what the kernel reads: at stride 2 the far side often is not read at all.
    """
    _, channels, height, width = shape
    pixel = np.tile(padding, channels // len(padding)).astype(t.scheme.dtype)
    (top, left, _, _), kernel = layer.integers("pads"), layer.filters.shape[2:]
    (down, across), dilation = layer.integers("stride"), layer.integers("dilation")
    bottom = max((target[2] - 1) * down + (kernel[0] - 1) * dilation[0] + 1 - height - top, 0)
    right = max((target[3] - 1) * across + (kernel[1] - 1) * dilation[1] + 1 - width - left, 0)
    for axis, amounts in ((1, (top, bottom)), (2, (left, right))):
        sizes = (1, 0, width, channels) if axis == 1 else (1, height + top + bottom, 0, channels)
        strips = [
            t.e.batched(np.broadcast_to(pixel, (*sizes[:axis], amount, *sizes[axis + 1 :])), source) if amount else ""
            for amount in amounts
        ]
        parts = [name for name in (strips[0], source, strips[1]) if name]
        source = t.e.op("Concat", parts, axis=axis) if len(parts) > 1 else source
    return source, replace(layer, attributes=layer.with_attributes(pads=(0, 0, 0, 0)))


def _one_pixel_each(t: Tensors, name: str, target: Shape, copies: int) -> str:
    """Return bytes of grouped output pixels as a map; onnxruntime makes nothing but a reshape of it."""
    last = t.e.op("Transpose", [name], perm=(0, 2, 3, 1))
    shape = (1, target[2], target[3] * copies, target[1] // copies)
    return t.e.op("Transpose", [t.e.op("Reshape", [last, t.e.shape(shape)])], perm=(0, 3, 1, 2))
