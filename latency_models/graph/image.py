"""The image at the input of a file: normalization and layout, in floating point."""

import numpy as np
from onnx import TensorProto, ValueInfoProto

from latency_models.graph.emitter import Emitter
from latency_models.graph.graph_input import GraphInput
from latency_models.graph.network import INPUT
from search_spaces.architecture import Shape

NORMALIZED = f"{INPUT}/normalized"


def declare(e: Emitter, graph_input: GraphInput, shape: Shape) -> ValueInfoProto:
    """Return the declaration of the file's input for a network whose own has `shape`."""
    dtype: type[np.generic] = np.uint8 if graph_input.dtype == "uint8" else np.float32
    return e.value(INPUT, dtype, graph_input.shape(shape))


def normalized(e: Emitter, graph_input: GraphInput, shape: Shape) -> str:
    """Add the nodes from the file's input to normalized images, and return their name.

    Normalization comes before the convolution that pads with zeros, so the border sees what it saw in training.
    """
    if len(shape) != 4:
        return INPUT
    name, last = INPUT, graph_input.layout == "nhwc"
    if graph_input.dtype == "uint8":
        name = _pixels_to_floats(e, graph_input, shape[1], 3 if last else 1)
    return e.op("Transpose", [name], NORMALIZED, perm=(0, 3, 1, 2)) if last else name


def _pixels_to_floats(e: Emitter, graph_input: GraphInput, channels: int, axis: int) -> str:
    """Return (pixel - mean) / std.

    One DequantizeLinear with scale 1/std and the mean as zero point is one pass where Cast, Sub and Mul are three; what
    rounding leaves of a mean is subtracted after it. It has a scale for each channel even where all are equal:
    behind one scale onnxruntime takes the file for a quantized one and quantizes the first weights too. A single
    channel cannot be told from one scale, so it takes the three passes.
    """
    mean, std = graph_input.normalization(channels)
    broadcast = (-1, *(1,) * (3 - axis))
    if channels == 1:
        name = e.op("Cast", [INPUT], to=int(TensorProto.FLOAT))
        name = e.op("Sub", [name, e.constant(mean.astype(np.float32).reshape(broadcast))])
        return e.op("Mul", [name, e.constant((1.0 / std).astype(np.float32).reshape(broadcast))])
    zero = np.clip(np.rint(mean), 0, 255)
    stored = [e.constant((1.0 / std).astype(np.float32)), e.constant(zero.astype(np.uint8))]
    name = e.op("DequantizeLinear", [INPUT, *stored], axis=axis)
    rest = (mean - zero) / std
    if not np.any(rest):
        return name
    return e.op("Sub", [name, e.constant(rest.astype(np.float32).reshape(broadcast))])


def value_range(graph_input: GraphInput, channels: int) -> tuple[float, float]:
    """Return the least and greatest value a normalized image can have."""
    mean, std = graph_input.normalization(channels)
    return float(((0.0 - mean) / std).min()), float(((255.0 - mean) / std).max())
