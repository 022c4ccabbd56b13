"""Nodes and initializers of one ONNX graph, gathered and made into a model."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, ValueInfoProto, helper

from latency_models.graph.weights import Array
from search_spaces.architecture import Shape

FIRST_OPSET = 13
"""Oldest opset the writer knows; before it quantization had no scale per channel."""

Number = int | float | str | tuple[int, ...]

_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int64): TensorProto.INT64,
}
_SHARED_ELEMENTS = 8
"""Constants up to this size are stored once; comparing larger ones costs more than it saves."""


class Emitter:
    """Collects a graph.

    Args:
        opset: ONNX opset of the file.
        ir_version: ONNX IR version of the file.
        batch: Images of one run; None for any number.

    Raises:
        ValueError: An opset this writer or the installed onnx does not know, or an IR version too old for it.
    """

    def __init__(self, *, opset: int, ir_version: int, batch: int | None = 1) -> None:
        newest = onnx.defs.onnx_opset_version()
        if not FIRST_OPSET <= opset <= newest:
            raise ValueError(f"opset must lie between {FIRST_OPSET} and {newest} (the installed onnx), got {opset=}")
        least = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
        if not least <= ir_version <= onnx.IR_VERSION:
            raise ValueError(f"opset {opset} needs an ir_version from {least} to {onnx.IR_VERSION}, got {ir_version=}")
        self.opset, self.batch = opset, batch
        self._model = onnx.ModelProto(ir_version=ir_version, producer_name="embedded-nas")
        self._model.opset_import.add(domain="", version=opset)
        self._graph = self._model.graph  # filled in place: protobuf copies whatever is put into it later
        self._graph.name = "network"
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def constant(self, value: Array | np.generic, stem: str = "constant") -> str:
        """Return the name of an initializer; its type is that of `value`, and a scalar stays without axes."""
        array = np.asarray(value)
        # A scale with an axis keeps onnxruntime from fusing, and `np.ascontiguousarray` would give it one.
        data, small = array.tobytes(), array.size <= _SHARED_ELEMENTS
        key = (array.dtype.str, array.shape, data)
        if small and key in self._shared:
            return self._shared[key]
        name = self._fresh(stem)
        self._graph.initializer.add(name=name, data_type=_TYPES[array.dtype], dims=array.shape, raw_data=data)
        if small:
            self._shared[key] = name
        return name

    def zeros(self, shape: Shape, dtype: np.dtype[Any]) -> str:
        """Return the name of an initializer of zeros, stored once for each shape and type."""
        key = (dtype.str, shape, b"")
        if key not in self._shared:
            self._shared[key] = self.constant(np.zeros(shape, dtype), "zeros")
        return self._shared[key]

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of an int64 vector, as shapes, axes and indices are written."""
        return self.constant(np.asarray(values, np.int64), "integers")

    def shape(self, shape: Shape) -> str:
        """Return the name of a shape for a reshape, with the leading axis left open unless the batch is one image."""
        return self.integers(shape if self.batch == 1 else (-1, *shape[1:]))

    def batched(self, value: Array, like: str) -> str:
        """Return the name of a constant of batch 1, repeated over as many images as the tensor `like` has."""
        if self.batch is not None:
            return self.constant(np.broadcast_to(value, (self.batch, *value.shape[1:])))
        images = self.op("Gather", [self.op("Shape", [like]), self.integers([0])], axis=0)
        target = self.op("Concat", [images, self.integers(value.shape[1:])], axis=0)
        return self.op("Expand", [self.constant(value), target])

    def op(self, kind: str, inputs: Iterable[str], output: str | None = None, **attributes: Number) -> str:
        """Add a node with one output and return the name of that."""
        return self.ops(kind, inputs, [output or self._fresh(kind.lower())], **attributes)[0]

    def ops(self, kind: str, inputs: Iterable[str], outputs: Sequence[str], **attributes: Number) -> Sequence[str]:
        """Add a node with any number of outputs and return their names."""
        self._graph.node.add(
            op_type=kind,
            name=self._fresh(f"node_{kind}"),
            input=inputs,
            output=outputs,
            attribute=[_attribute(name, value) for name, value in attributes.items()],
        )
        return outputs

    def value(self, name: str, dtype: type[np.generic], shape: Sequence[int | None]) -> ValueInfoProto:
        """Return the declaration of an input or output; an axis of None is the batch."""
        dims = ["batch" if size is None else size for size in shape]
        return helper.make_tensor_value_info(name, _TYPES[np.dtype(dtype)], dims)

    def output_value(self, name: str, shape: Shape) -> ValueInfoProto:
        """Return the declaration of a float output whose shape for one image is `shape`."""
        first = None if self.batch is None and shape[0] == 1 else shape[0] * (self.batch or 1)
        return self.value(name, np.float32, (first, *shape[1:]))

    def model(self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> onnx.ModelProto:
        """Return the model of all nodes so far; the emitter is spent."""
        self._graph.input.extend(inputs)
        self._graph.output.extend(outputs)
        return self._model

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


@functools.lru_cache(maxsize=4096, typed=True)
def _attribute(name: str, value: Number) -> AttributeProto:
    """Return an attribute, which nodes copy; `onnx.helper.make_attribute` takes several times as long."""
    fields: dict[str, Any]  # Any: protobuf's keyword arguments
    if isinstance(value, int):
        fields = {"type": AttributeProto.INT, "i": value}
    elif isinstance(value, float):
        fields = {"type": AttributeProto.FLOAT, "f": value}
    elif isinstance(value, str):
        fields = {"type": AttributeProto.STRING, "s": value.encode()}
    else:
        fields = {"type": AttributeProto.INTS, "ints": value}
    return AttributeProto(name=name, **fields)
