"""The ONNX form of every kind of the vocabulary, in float.

In an 8-bit network the same nodes stand between DequantizeLinear and QuantizeLinear, from which the runtime makes
integer kernels where it has them.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from latency_models.graph.emitter import Emitter
from latency_models.graph.general_operators import conv_transpose, general, group_norm
from latency_models.graph.network import Activation, Layer, activation
from search_spaces.errors import LoweringError
from search_spaces.workload import ACTIVATIONS

Write = Callable[[Emitter, Layer, Sequence[str], Sequence[str]], object]


def write(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Add the nodes of a layer, without its activation.

    Args:
        e: Where to.
        layer: What; its stored operands become initializers.
        inputs: Names of all operands in order: `with_constants`, then the weight and, if there is one, the bias.
        outputs: Names of the tensors it writes.

    Raises:
        LoweringError: A kind without ONNX form, or one that a batch of several images would break.
    """
    try:
        writer = _WRITERS[layer.kind]
    except KeyError:
        raise LoweringError(f"{layer.kind} in {layer.scope!r} has no ONNX form") from None
    writer(e, layer, inputs, outputs)


def with_constants(e: Emitter, layer: Layer, inputs: Sequence[str]) -> list[str]:
    """Return the names of all operands in order, stored ones among them."""
    operands = list(inputs)
    for place, constant in sorted(layer.constants.items()):
        if layer.kind == "concat":  # which does not broadcast
            operands.insert(place, e.batched(constant, inputs[0]))
        elif layer.kind != "gather":
            operands.insert(place, e.constant(constant, "operand"))
    return operands


def activate(e: Emitter, activation: Activation, source: str, output: str) -> str:
    """Add the nodes of an activation and return `output`."""
    kind = activation.kind
    if kind == "clip" and activation.low == 0.0 and activation.high == math.inf:
        return e.op("Relu", [source], output)
    if kind == "clip":
        bounds = [
            e.constant(np.float32(limit)) if math.isfinite(limit) else "" for limit in (activation.low, activation.high)
        ]
        return e.op("Clip", [source, *bounds] if bounds[1] else [source, bounds[0]], output)
    if kind == "hard_sigmoid":
        return e.op("HardSigmoid", [source], output, alpha=1 / 6, beta=0.5)
    if kind == "hard_swish" and e.opset >= 14:
        return e.op("HardSwish", [source], output)
    if kind == "hard_swish":
        return e.op("Mul", [source, e.op("HardSigmoid", [source], alpha=1 / 6, beta=0.5)], output)
    if kind == "leaky_relu":
        return e.op("LeakyRelu", [source], output, alpha=activation.slope)
    if kind == "silu":
        return e.op("Mul", [source, e.op("Sigmoid", [source])], output)
    if kind == "gelu":
        return _gelu(e, activation.approximate, source, output)
    return e.op({"sigmoid": "Sigmoid", "tanh": "Tanh"}[kind], [source], output)


def _gelu(e: Emitter, approximate: str, x: str, output: str) -> str:
    if e.opset >= 20:
        return e.op("Gelu", [x], output, approximate=approximate)

    def number(value: float) -> str:
        return e.constant(np.float32(value))

    if approximate == "tanh":
        cube = e.op("Mul", [e.op("Mul", [e.op("Mul", [x, x]), x]), number(0.044715)])
        inner = e.op("Tanh", [e.op("Mul", [e.op("Add", [x, cube]), number(math.sqrt(2 / math.pi))])])
    else:
        inner = e.op("Erf", [e.op("Div", [x, number(math.sqrt(2.0))])])
    return e.op("Mul", [e.op("Mul", [x, e.op("Add", [inner, number(1.0)])]), number(0.5)], output)


def _activation(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    activate(e, activation(layer.kind, layer.attributes), inputs[0], outputs[0])


def _simple(name: str) -> Write:
    return lambda e, layer, inputs, outputs: e.op(name, inputs, outputs[0])


def _conv(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op(
        "Conv", inputs, outputs[0],
        kernel_shape=layer.filters.shape[2:],
        strides=layer.integers("stride"),
        pads=layer.integers("pads"),
        group=layer.groups,
        dilations=layer.integers("dilation"),
    )  # fmt: skip


def _linear(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Gemm", inputs, outputs[0], transB=1)


def _batch_norm(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """As the operator of that name and not as product and sum: runtimes keep their blocked layout over it."""
    ones = np.ones(len(layer.filters), np.float32)
    e.op("BatchNormalization", [*inputs, e.zeros(ones.shape, ones.dtype), e.constant(ones)], outputs[0], epsilon=0.0)


def _layer_norm(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    axes, eps = list(range(-layer.integer("axes"), 0)), layer.number("eps")
    x, *stored = inputs
    if e.opset >= 17:
        stored = stored or [e.constant(np.float32(1.0).reshape((1,) * len(axes)))]
        e.op("LayerNormalization", [x, *stored], outputs[0], axis=axes[0], epsilon=eps)
        return
    centered = e.op("Sub", [x, reduced(e, "ReduceMean", x, axes, keep=True)])
    variance = reduced(e, "ReduceMean", e.op("Mul", [centered, centered]), axes, keep=True)
    deviation = e.op("Sqrt", [e.op("Add", [variance, e.constant(np.float32(eps))])])
    steps = [("Div", deviation), *zip(("Mul", "Add"), stored, strict=False)]
    for number, (kind, operand) in enumerate(steps, start=1):
        centered = e.op(kind, [centered, operand], outputs[0] if number == len(steps) else None)


def reduced(e: Emitter, kind: str, x: str, axes: Sequence[int], *, keep: bool, output: str | None = None) -> str:
    """Add a reduction; its axes became an input in opset 18, for sums in 13."""
    if e.opset >= 18 or kind == "ReduceSum":
        return e.op(kind, [x, e.integers(axes)], output, keepdims=int(keep))
    return e.op(kind, [x], output, axes=tuple(axes), keepdims=int(keep))


def _reduce(name: str) -> Write:
    def writer(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        axes = layer.integers("axes")
        _require_one_image(e, layer, 0 in axes, "reduces over the batch")
        reduced(e, name, inputs[0], axes, keep=bool(layer.attributes["keepdim"]), output=outputs[0])

    return writer


def _softmax(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Softmax", inputs, outputs[0], axis=layer.integer("axis"))


def _max_pool(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    kernel, strides, pads = (layer.integers(name) for name in ("kernel", "stride", "pads"))
    e.op("MaxPool", inputs, outputs[0], kernel_shape=kernel, strides=strides, pads=pads)


def _avg_pool(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    kernel, strides, pads = (layer.integers(name) for name in ("kernel", "stride", "pads"))
    counted = int(bool(layer.attributes["count_padding"]))
    e.op("AveragePool", inputs, outputs[0], kernel_shape=kernel, strides=strides, pads=pads, count_include_pad=counted)


def _concat(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Concat", inputs, outputs[0], axis=layer.integer("axis"))


def _split(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.ops("Split", [inputs[0], e.integers(layer.integers("sizes"))], outputs, axis=layer.integer("axis"))


def _slice(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    axis, start, stop, step = (layer.integer(name) for name in ("axis", "start", "stop", "step"))
    _require_one_image(e, layer, axis == 0, "picks images of the batch")
    if layer.attributes["drop"]:
        e.op("Gather", [inputs[0], e.constant(np.int64(start))], outputs[0], axis=axis)
    else:
        e.op("Slice", [inputs[0], *(e.integers([value]) for value in (start, stop, axis, step))], outputs[0])


def _gather(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    axis = layer.integer("axis")
    _require_one_image(e, layer, axis == 0, "picks images of the batch")
    e.op("Gather", [inputs[0], e.constant(layer.index, "index")], outputs[0], axis=axis)


def _reshape(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Reshape", [inputs[0], e.shape(tuple(layer.integers("shape")))], outputs[0])


def _transpose(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    order = layer.integers("order")
    _require_one_image(e, layer, order[0] != 0, "moves the batch axis")
    e.op("Transpose", inputs, outputs[0], perm=order)


def _expand(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Expand", [inputs[0], e.integers(layer.integers("shape"))], outputs[0])


def _pad(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """`inputs` may hold the value after the tensor, in the tensor's type."""
    value = inputs[1] if len(inputs) > 1 else e.constant(np.float32(layer.number("value")))
    e.op("Pad", [inputs[0], e.integers(layer.integers("pads")), value], outputs[0])


def _upsample(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    scales = e.constant(np.array([1, 1, *layer.integers("factor")], np.float32))
    nearest = layer.attributes["mode"] == "nearest"
    modes = {"mode": "nearest" if nearest else "linear"}
    modes["coordinate_transformation_mode"] = "asymmetric" if nearest else "half_pixel"
    if nearest:
        modes["nearest_mode"] = "floor"
    e.op("Resize", [inputs[0], "", scales], outputs[0], **modes)


def _require_one_image(e: Emitter, layer: Layer, breaks: bool, what: str) -> None:
    if breaks and e.batch != 1:
        raise LoweringError(f"{layer.kind} in {layer.scope!r} {what}: write the file for one image (batch=1)")


_WRITERS: dict[str, Write] = {
    "conv": _conv, "linear": _linear, "batch_norm": _batch_norm, "layer_norm": _layer_norm,
    "conv_transpose": conv_transpose, "group_norm": group_norm,
    **dict.fromkeys(("elementwise", "reduction", "movement"), general),
    **dict.fromkeys(ACTIVATIONS, _activation),
    "softmax": _softmax, "exp": _simple("Exp"), "sqrt": _simple("Sqrt"), "reciprocal": _simple("Reciprocal"),
    "abs": _simple("Abs"), "neg": _simple("Neg"), "add": _simple("Add"), "sub": _simple("Sub"), "mul": _simple("Mul"),
    "div": _simple("Div"), "pow": _simple("Pow"), "matmul": _simple("MatMul"),
    "global_avg_pool": _simple("GlobalAveragePool"), "avg_pool": _avg_pool, "max_pool": _max_pool,
    "mean": _reduce("ReduceMean"), "sum": _reduce("ReduceSum"), "amax": _reduce("ReduceMax"),
    "concat": _concat, "split": _split, "slice": _slice, "gather": _gather, "reshape": _reshape,
    "transpose": _transpose, "expand": _expand, "pad": _pad, "upsample": _upsample,
}  # fmt: skip
