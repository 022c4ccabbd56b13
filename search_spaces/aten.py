"""Translation of torch's operators into our vocabulary: the only file that knows aten names.

Each reader takes the bound arguments of one call (defaults filled in) and returns a `Call`, or an `Alias` where
the call only renames a tensor. Operators that are not here raise LoweringError in the recorder.

Multi-head attention is matrix products and a softmax, with or without `scaled_dot_product_attention`; it is priced
as that, not as a fused kernel. What `record` does not take, because no word of the vocabulary, nor one operator
with other arguments, computes it:

* activations: PReLU (a leaky ReLU of one fixed slope is taken), ELU, SELU, Mish, Softplus, GLU, log-softmax (return
  the logits), log, sin, rsqrt;
* two-operand choices: maximum, minimum, where, comparisons, argmax;
* normalization: group, instance without running statistics, RMS, `normalize`, local response;
* pooling: adaptive max pooling to more than one pixel, `ceil_mode`, uneven adaptive windows, `max` with
  indices, `unfold`;
* movement: unbind, flip, roll, repeat, pixel shuffle, padding by reflection;
* layers: one- and three-dimensional and transposed convolutions, bilinear layers, recurrent layers, FFTs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from search_spaces.errors import LoweringError
from search_spaces.workload import Attribute

Arguments = Mapping[str, Any]  # Any: torch hands tensors, numbers, lists and None


@dataclass(frozen=True, slots=True)
class Call:
    """One operator: tensors it reads by position or by role, and its attributes."""

    kind: str
    inputs: tuple[torch.Tensor, ...]
    parameters: tuple[tuple[str, torch.Tensor], ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alias:
    """The result is the same tensor under another name."""

    source: torch.Tensor


Reader = Callable[[Arguments], Call | Alias]
Rewriter = Callable[[Arguments], Any]  # Any: a tensor, or a tuple of them

IGNORED = frozenset({"empty", "empty_like", "zeros", "ones", "arange", "scalar_tensor", "full", "sym_size"})
"""Make tensors from nothing; whoever then reads such a tensor is told to register it as a buffer."""

SAME_SHAPE = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit_no_training", "relu", "hardtanh", "hardswish", "clamp",
     "hardsigmoid", "sigmoid", "silu", "gelu", "tanh", "leaky_relu"}
)  # fmt: skip
"""Results have the shape of the first argument. Running torch's meta kernels for these costs up to 1 ms each."""


def _unary(kind: str) -> Reader:
    return lambda a: Call(kind, (a["self"],))


def _clip(low: str, high: str) -> Reader:
    def read(a: Arguments) -> Call:
        minimum = -math.inf if a[low] is None else float(a[low])
        maximum = math.inf if a[high] is None else float(a[high])
        if minimum == 0.0 and maximum == math.inf:
            return Call("relu", (a["self"],))
        return Call("clip", (a["self"],), attributes={"min": minimum, "max": maximum})

    return read


def _binary(kind: str) -> Reader:
    """Two tensors, or a tensor and a scalar; `reverse` says that the scalar or parameter stands on the left."""

    def read(a: Arguments) -> Call:
        left, right = a["self"], a.get("other", a.get("exponent"))
        if a.get("alpha", 1) != 1:
            raise LoweringError(f"{kind} with {a['alpha']=} is not in the vocabulary; multiply first")
        if a.get("rounding_mode") is not None:
            raise LoweringError("division with rounding is not in the vocabulary")
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            return Call(kind, (left, right))
        if isinstance(left, torch.Tensor):
            return Call(kind, (left,), attributes={"scalar": float(right)})
        return Call(kind, (right,), attributes={"scalar": float(left), "reverse": True})

    return read


def _reversed_sub(a: Arguments) -> Call:
    if a["alpha"] != 1:
        raise LoweringError(f"rsub with {a['alpha']=} is not in the vocabulary; multiply first")
    if isinstance(a["other"], torch.Tensor):
        return Call("sub", (a["other"], a["self"]))
    return Call("sub", (a["self"],), attributes={"scalar": float(a["other"]), "reverse": True})


def _convolution(a: Arguments) -> Call:
    weight = a["weight"]
    if a["transposed"] or weight.ndim != 4:
        raise LoweringError("only two-dimensional, not transposed convolutions are in the vocabulary")
    parameters = [("weight", weight)] + ([("bias", a["bias"])] if a["bias"] is not None else [])
    return Call(
        "conv",
        (a["input"],),
        tuple(parameters),
        {
            "kernel": tuple(weight.shape[2:]),
            "stride": tuple(a["stride"]),
            "padding": tuple(a["padding"]),
            "dilation": tuple(a["dilation"]),
            "groups": int(a["groups"]),
        },
    )


def _batch_norm(a: Arguments) -> Call:
    if a.get("training", False) or a["running_mean"] is None:
        raise LoweringError("batch normalization must keep running statistics (track_running_stats=True)")
    roles = (
        ("norm_weight", "weight"), ("norm_bias", "bias"),
        ("norm_mean", "running_mean"), ("norm_var", "running_var"),
    )  # fmt: skip
    parameters = tuple((role, a[name]) for role, name in roles if a[name] is not None)
    return Call("batch_norm", (a["input"],), parameters, {"eps": float(a["eps"])})


def _layer_norm(a: Arguments) -> Call:
    parameters = tuple((role, a[role]) for role in ("weight", "bias") if a[role] is not None)
    attributes: dict[str, Attribute] = {"axes": len(a["normalized_shape"]), "eps": float(a["eps"])}
    return Call("layer_norm", (a["input"],), parameters, attributes)


def _addmm(a: Arguments) -> Call:
    if a["beta"] != 1 or a["alpha"] != 1:
        raise LoweringError("addmm with a factor is not in the vocabulary")
    return Call("linear", (a["mat1"],), (("weight", a["mat2"]), ("bias", a["self"])))


def _mm(a: Arguments) -> Call:
    return Call("linear", (a["self"],), (("weight", a["mat2"]),))


def _matmul(a: Arguments) -> Call:
    return Call("matmul", (a["self"], a["mat2"]))


def _softmax(a: Arguments) -> Call:
    return Call("softmax", (a["self"],), attributes={"axis": a["dim"] % a["self"].ndim})


def _safe_softmax(a: Arguments) -> Call:
    """Read the softmax of attention, which differs from softmax only in rows that a mask hides altogether."""
    if a["dtype"] is not None:
        raise LoweringError("softmax in another dtype is not in the vocabulary")
    return _softmax(a)


def _log_softmax(a: Arguments) -> Call:
    raise LoweringError("log-softmax is not in the vocabulary; return the logits and leave it to the loss")


def _gelu(a: Arguments) -> Call:
    return Call("gelu", (a["self"],), attributes={"approximate": a["approximate"]})


def _leaky_relu(a: Arguments) -> Call:
    return Call("leaky_relu", (a["self"],), attributes={"slope": float(a["negative_slope"])})


def _reduce(kind: str) -> Reader:
    def read(a: Arguments) -> Call:
        x = a["self"]
        axes = tuple(sorted(axis % x.ndim for axis in (a["dim"] or range(x.ndim))))
        keep = bool(a["keepdim"])
        if kind == "mean" and x.ndim == 4 and axes == (2, 3):
            return Call("global_avg_pool", (x,), attributes={"keepdim": keep})
        return Call(kind, (x,), attributes={"axes": axes, "keepdim": keep})

    return read


def _pair(value: Any, default: Any = None) -> tuple[int, int]:  # Any: torch gives [], [n] or [n, m]
    items = list(value) or list(default)
    return (int(items[0]), int(items[-1]))


def _max_pool(a: Arguments) -> Call:
    if a["ceil_mode"]:
        raise LoweringError("pooling with ceil_mode is not in the vocabulary; pad instead")
    kernel = _pair(a["kernel_size"])
    attributes: dict[str, Attribute] = {
        "kernel": kernel,
        "stride": _pair(a["stride"], kernel),
        "padding": _pair(a["padding"]),
    }
    if _pair(a["dilation"]) != (1, 1):
        raise LoweringError("pooling with dilation is not in the vocabulary")
    return Call("max_pool", (a["self"],), attributes=attributes)


def _avg_pool(a: Arguments) -> Call:
    if a["ceil_mode"] or a["divisor_override"] is not None:
        raise LoweringError("average pooling with ceil_mode or divisor_override is not in the vocabulary")
    kernel = _pair(a["kernel_size"])
    attributes: dict[str, Attribute] = {
        "kernel": kernel,
        "stride": _pair(a["stride"], kernel),
        "padding": _pair(a["padding"]),
        "count_padding": bool(a["count_include_pad"]),
    }
    return Call("avg_pool", (a["self"],), attributes=attributes)


def _adaptive_avg_pool(a: Arguments) -> Call:
    x, (height, width) = a["self"], tuple(a["output_size"])
    if x.shape[2] % height or x.shape[3] % width:
        raise LoweringError(f"adaptive pooling of {tuple(x.shape[2:])} to {(height, width)} has uneven windows")
    kernel = (x.shape[2] // height, x.shape[3] // width)
    attributes: dict[str, Attribute] = {
        "kernel": kernel, "stride": kernel, "padding": (0, 0), "count_padding": True,
    }  # fmt: skip
    return Call("avg_pool", (x,), attributes=attributes)


def _concat(a: Arguments) -> Call:
    tensors = tuple(tensor for tensor in a["tensors"] if tensor.numel())
    return Call("concat", tensors, attributes={"axis": a["dim"] % tensors[0].ndim})


def _split(a: Arguments) -> Call:
    x = a["self"]
    axis = a["dim"] % x.ndim
    size = a.get("split_size", a.get("split_sizes"))
    length = x.shape[axis]
    if isinstance(size, int):
        sizes = [size] * (length // size) + ([length % size] if length % size else [])
    else:
        sizes = list(size)
    return Call("split", (x,), attributes={"axis": axis, "sizes": tuple(sizes)})


def _slice(a: Arguments) -> Call | Alias:
    x = a["self"]
    axis = a["dim"] % x.ndim
    start, stop, step = slice(a["start"], a["end"], a["step"]).indices(x.shape[axis])
    if (start, step) == (0, 1) and stop == x.shape[axis]:
        return Alias(x)
    return Call("slice", (x,), attributes={"axis": axis, "start": start, "stop": stop, "step": step, "drop": False})


def _select(a: Arguments) -> Call:
    x = a["self"]
    axis = a["dim"] % x.ndim
    start = a["index"] % x.shape[axis]
    attributes: dict[str, Attribute] = {
        "axis": axis,
        "start": start,
        "stop": start + 1,
        "step": 1,
        "drop": True,
    }
    return Call("slice", (x,), attributes=attributes)


def _permute(a: Arguments) -> Call:
    x = a["self"]
    return Call("transpose", (x,), attributes={"order": tuple(axis % x.ndim for axis in a["dims"])})


def _transpose(a: Arguments) -> Call:
    x = a["self"]
    order = list(range(x.ndim))
    first, second = (a["dim0"] % x.ndim, a["dim1"] % x.ndim) if "dim0" in a else (0, 1)
    order[first], order[second] = order[second], order[first]
    return Call("transpose", (x,), attributes={"order": tuple(order)})


def _expand(a: Arguments) -> Call | Alias:
    x, size = a["self"], tuple(a["size"])
    target = tuple(
        old if new == -1 else new for old, new in zip((1,) * (len(size) - x.ndim) + tuple(x.shape), size, strict=True)
    )
    return Alias(x) if target == tuple(x.shape) else Call("expand", (x,), attributes={"shape": target})


def _gather(a: Arguments) -> Call:
    x = a["self"]
    if "indices" in a:  # x[:, index]
        used = [(axis, index) for axis, index in enumerate(a["indices"]) if index is not None]
        if len(used) != 1:
            raise LoweringError("indexing with more than one index tensor is not in the vocabulary")
        axis, index = used[0]
    else:  # index_select
        axis, index = a["dim"] % x.ndim, a["index"]
    return Call("gather", (x,), (("index", index),), {"axis": axis})


def _pad(a: Arguments) -> Call:
    return Call("pad", (a["self"],), attributes={"pad": tuple(a["pad"]), "value": float(a["value"])})


def _upsample(mode: str) -> Reader:
    def read(a: Arguments) -> Call:
        x = a["self"]
        size = tuple(a["output_size"]) if "output_size" in a else None
        if size is None:
            raise LoweringError("upsampling needs a fixed size")
        if size[0] % x.shape[2] or size[1] % x.shape[3] or a.get("align_corners", False):
            raise LoweringError("upsampling must be by a whole factor, without align_corners")
        factor = (size[0] // x.shape[2], size[1] // x.shape[3])
        return Call("upsample", (x,), attributes={"mode": mode, "factor": factor})

    return read


def _reshape(a: Arguments) -> Call:
    return Call("reshape", (a["self"],))


def _same(a: Arguments) -> Alias:
    return Alias(a["self"])


READERS: dict[str, Reader] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "addmm": _addmm,
    "mm": _mm,
    "bmm": _matmul,
    "relu": _unary("relu"),
    "hardtanh": _clip("min_val", "max_val"),
    "clamp": _clip("min", "max"),
    "clamp_min": lambda a: _clip("min", "max")({**a, "max": None}),
    "leaky_relu": _leaky_relu,
    "hardswish": _unary("hard_swish"),
    "hardsigmoid": _unary("hard_sigmoid"),
    "sigmoid": _unary("sigmoid"),
    "silu": _unary("silu"),
    "gelu": _gelu,
    "tanh": _unary("tanh"),
    "exp": _unary("exp"),
    "sqrt": _unary("sqrt"),
    "reciprocal": _unary("reciprocal"),
    "abs": _unary("abs"),
    "neg": _unary("neg"),
    "_softmax": _softmax,
    "_safe_softmax": _safe_softmax,
    "_log_softmax": _log_softmax,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "rsub": _reversed_sub,
    "mul": _binary("mul"),
    "div": _binary("div"),
    "pow": _binary("pow"),
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("amax"),
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "cat": _concat,
    "split": _split,
    "split_with_sizes": _split,
    "slice": _slice,
    "select": _select,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "expand": _expand,
    "index": _gather,
    "index_select": _gather,
    "constant_pad_nd": _pad,
    "upsample_nearest2d": _upsample("nearest"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "_reshape_alias": _reshape,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "clone": _same,
    "contiguous": _same,
    "alias": _same,
    "detach": _same,
    "_to_copy": _same,
    "lift_fresh": _same,
}
"""Readers by aten name; the in-place form `name_` is read by the same reader."""


def _stack(a: Arguments) -> torch.Tensor:
    return torch.cat([tensor.unsqueeze(a["dim"]) for tensor in a["tensors"]], a["dim"])


def _adaptive_max_pool(a: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    if tuple(a["output_size"]) != (1, 1):
        raise LoweringError("adaptive max pooling to more than one pixel is not in the vocabulary")
    found = torch.amax(a["self"], (2, 3), keepdim=True)
    return found, torch.empty_like(found, dtype=torch.int64)


REWRITERS: dict[str, Rewriter] = {"stack": _stack, "adaptive_max_pool2d": _adaptive_max_pool}
"""Operators that are computed, and recorded, by others."""
