"""The ONNX form of transposed convolutions, group normalization and the three general kinds, in float.

Of `elementwise`, `reduction` and `movement` the functions below have a form; a network with another one is priced
from its workload but has no file here, and the error says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from latency_models.graph.emitter import Emitter
from latency_models.graph.network import Layer
from search_spaces.errors import LoweringError

Write = Callable[[Emitter, Layer, Sequence[str], Sequence[str]], object]

_RESIZE_AXES_SINCE, _MISH_SINCE = 18, 18  # opsets


def conv_transpose(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Add a transposed convolution; its weight is `in x out/groups x height x width`, as torch has it."""
    e.op(
        "ConvTranspose", inputs, outputs[0],
        kernel_shape=layer.filters.shape[2:],
        strides=layer.integers("stride"),
        pads=layer.integers("pads"),
        output_padding=layer.integers("output_padding"),
        group=layer.groups,
        dilations=layer.integers("dilation"),
    )  # fmt: skip


def group_norm(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Add instance normalization of the groups' elements in one row each, which every opset has, then the factors."""
    groups, eps, shape = layer.groups, layer.number("eps"), layer.integers("shape")
    rows = e.op("Reshape", [inputs[0], e.shape((shape[0], groups, math.prod(shape[1:]) // groups))])
    ones, zeros = e.constant(np.ones(groups, np.float32)), e.zeros((groups,), np.dtype(np.float32))
    normal = e.op("InstanceNormalization", [rows, ones, zeros], epsilon=eps)
    steps = [(kind, stored) for kind, stored in (("Mul", layer.weight), ("Add", layer.bias)) if stored is not None]
    found = e.op("Reshape", [normal, e.shape(shape)], None if steps else outputs[0])
    for number, (kind, stored) in enumerate(steps, start=1):
        by_channel = e.constant(stored.reshape(-1, *(1,) * (len(shape) - 2)), "weight")
        found = e.op(kind, [found, by_channel], outputs[0] if number == len(steps) else None)


def general(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Add an operator of one of the general kinds.

    Raises:
        LoweringError: Its function has no form here, or not with these arguments.
    """
    function = str(layer.attributes["function"])
    numbers = any(name.startswith("number_") for name in layer.attributes)
    if function not in _FORMS or numbers:
        raise LoweringError(
            f"{function} in {layer.scope!r} is priced but cannot be written to ONNX by this writer: "
            "replace it by another function, or leave it out of the network that becomes a file"
        )
    _FORMS[function](e, layer, inputs, outputs)


def _refuse(layer: Layer, what: str) -> LoweringError:
    return LoweringError(
        f"{layer.attributes['function']} in {layer.scope!r} {what}, which has no ONNX form here: it is priced, but no "
        "file can be written"
    )


def _simple(name: str) -> Write:
    return lambda e, layer, inputs, outputs: e.op(name, inputs, outputs[0])


def _elu(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """ELU, CELU and SELU are one function of torch with three factors; ONNX has a name for each."""
    alpha, scale, inner = (layer.number(name) for name in ("alpha", "scale", "input_scale"))
    if inner == 1.0 and scale == 1.0:
        e.op("Elu", inputs, outputs[0], alpha=alpha)
    elif inner == 1.0:
        e.op("Selu", inputs, outputs[0], alpha=alpha, gamma=scale)
    elif scale == 1.0 and math.isclose(alpha * inner, 1.0):
        e.op("Celu", inputs, outputs[0], alpha=alpha)
    else:
        raise _refuse(layer, f"has {alpha=}, {scale=}, input_scale={inner}")


def _softplus(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    beta = layer.number("beta")
    if beta == 1.0:
        e.op("Softplus", inputs, outputs[0])
        return
    factor = e.constant(np.float32(beta))
    e.op("Div", [e.op("Softplus", [e.op("Mul", [inputs[0], factor])]), factor], outputs[0])


def _mish(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    if e.opset >= _MISH_SINCE:
        e.op("Mish", inputs, outputs[0])
    else:
        e.op("Mul", [inputs[0], e.op("Tanh", [e.op("Softplus", inputs)])], outputs[0])


def _of_inner(outer: str, inner: str) -> Write:
    return lambda e, layer, inputs, outputs: e.op(outer, [e.op(inner, inputs)], outputs[0])


def _log_sigmoid(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    e.op("Neg", [e.op("Softplus", [e.op("Neg", inputs)])], outputs[0])


def _reduce(name: str) -> Write:
    def writer(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        axes, keep = layer.integers("axes"), int(bool(layer.attributes["keepdim"]))
        if 0 in axes and e.batch != 1:
            raise _refuse(layer, "reduces over the batch of a file for several images")
        if e.opset >= 18:
            e.op(name, [inputs[0], e.integers(axes)], outputs[0], keepdims=keep)
        else:
            e.op(name, inputs, outputs[0], axes=axes, keepdims=keep)

    return writer


def _vector_norm(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    order = layer.number("ord")
    if order not in (1.0, 2.0):
        raise _refuse(layer, f"is of order {order:g}")
    _reduce("ReduceL1" if order == 1.0 else "ReduceL2")(e, layer, inputs, outputs)


def _surround(mode: str) -> Write:
    def writer(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        pad, rank = layer.integers("padding"), len(layer.integers("shape"))
        ends = [pad[2 * (rank - 1 - axis) :][:2] or (0, 0) for axis in range(rank)]
        pads = [before for before, _ in ends] + [after for _, after in ends]
        e.op("Pad", [inputs[0], e.integers(pads)], outputs[0], mode=mode)

    return writer


def _flip(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    rank = len(layer.integers("shape"))
    axes = [axis % rank for axis in layer.integers("dims")]
    if 0 in axes and e.batch != 1:
        raise _refuse(layer, "turns the batch of a file for several images round")
    starts, ends, steps = [-1] * len(axes), [-(2**31)] * len(axes), [-1] * len(axes)
    e.op("Slice", [inputs[0], *map(e.integers, (starts, ends, axes, steps))], outputs[0])


_RESIZE: Mapping[str, Mapping[str, str | float]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "nearest_exact": {
        "mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "bicubic": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75},
}  # fmt: skip


def _resize(e: Emitter, layer: Layer, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    mode, shape = str(layer.attributes["mode"]), layer.integers("shape")
    if mode not in _RESIZE:
        raise _refuse(layer, f"is of mode {mode}")
    how = dict(_RESIZE[mode])
    if layer.attributes["align_corners"]:
        how["coordinate_transformation_mode"] = "align_corners"
    if e.opset < _RESIZE_AXES_SINCE and e.batch is None:
        raise _refuse(layer, f"is written to opset {e.opset} for any number of images")
    if e.opset >= _RESIZE_AXES_SINCE:
        size, axes = layer.integers("size"), tuple(range(2, len(shape)))
        e.op("Resize", [inputs[0], "", "", e.integers(size)], outputs[0], axes=axes, **how)
    else:
        sizes = (e.batch or 1, shape[1], *layer.integers("size"))
        e.op("Resize", [inputs[0], "", "", e.integers(sizes)], outputs[0], **how)


_FORMS: dict[str, Write] = {
    "elu": _elu, "softplus": _softplus, "mish": _mish, "prelu": _simple("PRelu"), "log_sigmoid": _log_sigmoid,
    "log": _simple("Log"), "rsqrt": _of_inner("Reciprocal", "Sqrt"), "sin": _simple("Sin"), "cos": _simple("Cos"),
    "erf": _simple("Erf"), "floor": _simple("Floor"), "ceil": _simple("Ceil"), "round": _simple("Round"),
    "sign": _simple("Sign"), "maximum": _simple("Max"), "minimum": _simple("Min"),
    "amin": _reduce("ReduceMin"), "prod": _reduce("ReduceProd"), "logsumexp": _reduce("ReduceLogSumExp"),
    "vector_norm": _vector_norm,
    "flip": _flip, "reflection_pad": _surround("reflect"), "replication_pad": _surround("edge"), "resize": _resize,
}  # fmt: skip
