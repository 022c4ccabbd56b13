"""The bytes of an image at the input of an 8-bit file: what they mean, and who reads them how."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latency_models.graph.graph_input import GraphInput
from latency_models.graph.image import normalized, value_range
from latency_models.graph.network import INPUT, Layer
from latency_models.graph.quantizers import Scheme, TensorParams
from latency_models.graph.ranges import Ranges
from latency_models.graph.tensors import Tensors
from search_spaces.architecture import Shape

PIXELS = f"{INPUT}/pixels"
"""The tensor of bytes in the layout of the file's input, which first convolutions read."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """What the bytes of an image mean: (byte - params.zero) * params.scale * factor - offset, channel by channel.

    Attributes:
        params: One scale and zero point for all channels.
        factor: One for each channel; the first convolution's weights take it.
        offset: One for each channel; the first convolution's bias takes it.
        padding: The byte of each channel that stands for 0, where one zero point does not serve all; else None.
        last: Whether channels are the last axis of the file's input.
    """

    params: TensorParams
    factor: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    padding: npt.NDArray[np.int64] | None
    last: bool

    @property
    def are_uniform(self) -> bool:
        """Whether scale and zero point tell all, so that any layer can read the bytes."""
        return bool(np.all(self.factor == 1.0) and not np.any(self.offset))


def read_pixels(graph_input: GraphInput, shape: Shape, scheme: Scheme, ranges: Ranges) -> Pixels:
    """Return what the bytes at the input mean.

    Pixels with one integer mean and one std are normalized by reading them, and padding with the zero point is exact.
    Other stds go into the first weights, exactly; what is left of means into the first bias, exactly but for
    the border, which is padded with whole pixels: within half a step of pixels (see README, or `padding`).

    Args:
        graph_input: How the file takes an image.
        shape: Of the network's input.
        scheme: Type of the bytes.
        ranges: May say which values a float input has; by default those of normalized pixels.
    """
    channels = shape[1]
    ones, zeros = np.ones(channels), np.zeros(channels)
    last = graph_input.layout == "nhwc" and len(shape) == 4
    if graph_input.dtype == "float32":
        span = ranges[INPUT] if INPUT in ranges else value_range(graph_input, channels)
        return Pixels(scheme.params(*span), ones, zeros, None, last)
    mean, std = graph_input.normalization(channels)
    zero = int(np.clip(np.rint(mean.mean()), 0, 255))
    unit = float(std.mean())
    scale = np.float32(1.0 / unit)
    frame = np.rint(mean).clip(0, 255).astype(np.int64)
    return Pixels(
        TensorParams(scale, zero + scheme.least, scale),
        unit / std,
        (mean - zero) / std,
        frame + scheme.least if np.any(frame != zero) else None,
        last,
    )


def is_stem(layer: Layer) -> bool:
    """Whether a layer is a first convolution, which takes the normalization of pixels into its weights."""
    return layer.kind == "conv" and layer.groups == 1 and layer.inputs == (INPUT,)


def image_params(
    pixels: Pixels, graph_input: GraphInput, shape: Shape, scheme: Scheme, readers: Sequence[Layer]
) -> TensorParams:
    """Return the parameters of the image as a tensor that any layer reads."""
    if pixels.are_uniform or all(map(is_stem, readers)):
        return pixels.params
    return scheme.params(*value_range(graph_input, shape[1]))


def open_image(t: Tensors, pixels: Pixels, graph_input: GraphInput, shape: Shape, readers: Sequence[Layer]) -> None:
    """Add the nodes that give each reader of the image the form it wants: pixels, a tensor of bytes, or floats."""
    stems = any(layer.quantized and is_stem(layer) for layer in readers)
    others = any(layer.quantized and not is_stem(layer) for layer in readers)
    if stems or (others and pixels.are_uniform):
        t.put_bytes(PIXELS, _pixels(t, pixels, graph_input))
    if others and pixels.are_uniform:
        source = t.bytes(PIXELS)
        t.put_bytes(INPUT, t.e.op("Transpose", [source], perm=(0, 3, 1, 2)) if pixels.last else source)
    if not readers or not all(layer.quantized for layer in readers) or (others and not pixels.are_uniform):
        t.put_float(INPUT, normalized(t.e, graph_input, shape))


def _pixels(t: Tensors, pixels: Pixels, graph_input: GraphInput) -> str:
    """Return the bytes in the type of activations: floats are quantized, unsigned pixels moved to signed ones."""
    e, stored = t.e, t.scale_and_zero(pixels.params, read=False)
    if graph_input.dtype == "float32":
        return e.op("QuantizeLinear", [INPUT, *stored])
    if t.scheme.dtype is np.uint8:
        return INPUT
    unsigned = e.constant(np.uint8(pixels.params.zero - t.scheme.least))
    return e.op("QuantizeLinear", [e.op("DequantizeLinear", [INPUT, stored[0], unsigned]), *stored])
