"""The tensors of an 8-bit file while it is written: as bytes, as floats made of bytes, as floats."""

from collections.abc import Mapping, Sequence

import numpy as np

from latency_models.graph.emitter import Emitter
from latency_models.graph.quantizers import Scheme, TensorParams
from latency_models.graph.weights import Array


class Tensors:
    """Where each tensor of the network is in the file, in whichever form somebody asks for.

    Args:
        e: The graph.
        scheme: Arithmetic of the plan.
        params: Parameters of every tensor that is stored in 8 bits.
    """

    def __init__(self, e: Emitter, scheme: Scheme, params: Mapping[str, TensorParams]) -> None:
        self.e, self.scheme = e, scheme
        self.params = dict(params)
        self._stored_params: dict[tuple[float, int], Sequence[str]] = {}
        self._bytes: dict[str, str] = {}
        self._read: dict[str, str] = {}
        self._floats: dict[str, str] = {}

    def scale_and_zero(self, params: TensorParams, *, read: bool) -> Sequence[str]:
        """Return the names of scale and zero point, which have no axes: with one, kernels do not fuse."""
        scale = params.read_scale if read else params.scale
        key = (float(scale), params.zero)
        if key not in self._stored_params:
            zero = self.scheme.dtype(params.zero)
            self._stored_params[key] = [self.e.constant(scale, "scale"), self.e.constant(zero, "zero")]
        return self._stored_params[key]

    def write(self, value: str, name: str, params: TensorParams | None = None) -> None:
        """Store the float `value`, an ONNX name, in 8 bits as the tensor `name`."""
        if params is not None:
            self.params[name] = params
        stored = self.scale_and_zero(self.params[name], read=False)
        self._bytes[name] = self.e.op("QuantizeLinear", [value, *stored], f"{name}/bytes")

    def put_bytes(self, name: str, value: str) -> None:
        """Let the bytes `value`, an ONNX name, be the tensor `name`."""
        self._bytes[name] = value

    def put_float(self, name: str, value: str) -> None:
        """Let the floats `value`, an ONNX name, be the tensor `name`."""
        self._floats[name] = value

    def has_floats(self, name: str) -> bool:
        """Whether a tensor was written in floats."""
        return name in self._floats

    def bytes(self, name: str) -> str:
        """Return the bytes of a tensor; floats are quantized when somebody first asks."""
        if name not in self._bytes:
            self.write(self._floats[name], name)
        return self._bytes[name]

    def read(self, name: str) -> str:
        """Return a tensor as an integer kernel reads it: bytes and a DequantizeLinear."""
        if name not in self._read:
            self._read[name] = self.dequantized(self.bytes(name), self.params[name])
        return self._read[name]

    def floats(self, name: str) -> str:
        """Return a tensor as a float kernel reads it."""
        return self._floats[name] if name in self._floats else self.read(name)

    def floats_beside_weights(self, name: str, channels: int) -> str:
        """Return a tensor of so many channels as a layer with float weights reads it.

        Bytes get a scale for each channel, all equal: behind one scale onnxruntime quantizes the weights by itself.
        """
        if name in self._floats:
            return self._floats[name]
        params = self.params[name]
        scale = np.full(channels, params.read_scale)
        zero = np.full(channels, params.zero, self.scheme.dtype)
        stored = [self.e.constant(item, "by_channel") for item in (scale, zero)]
        return self.e.op("DequantizeLinear", [self.bytes(name), *stored], axis=1)

    def dequantized(self, value: str, params: TensorParams, output: str | None = None) -> str:
        """Return the floats of bytes."""
        return self.e.op("DequantizeLinear", [value, *self.scale_and_zero(params, read=True)], output)

    def constant(self, value: Array, params: TensorParams | None = None) -> str:
        """Return a stored operand as an integer kernel reads it."""
        params = params or self.scheme.params(float(value.min()), float(value.max()))
        return self.dequantized(self.e.constant(self.scheme.quantize(value, params), "operand"), params)

    def weights(self, weight: Array, bias: Array | None, input_scale: np.float32) -> list[str]:
        """Return weight and bias of a layer as an integer kernel reads them."""
        quantized = self.scheme.weights(weight, bias, input_scale)
        return [
            self._stored(quantized.weight, quantized.weight_scale, "weight"),
            self._stored(quantized.bias, quantized.bias_scale, "bias"),
        ]

    def _stored(self, integers: Array, scale: Array, stem: str) -> str:
        zero = self.e.zeros(scale.shape, integers.dtype)
        inputs = [self.e.constant(integers, stem), self.e.constant(scale, "scale"), zero]
        if not scale.ndim:
            return self.e.op("DequantizeLinear", inputs)
        return self.e.op("DequantizeLinear", inputs, axis=0)
