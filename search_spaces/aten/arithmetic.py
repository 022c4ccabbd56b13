"""Elementwise functions and softmax.

Those that runtimes merge, or have 8-bit kernels for, are kinds of their own; all others are one kind, `elementwise`,
whose attribute `function` says which.
"""

import math

import torch

from search_spaces.aten.calls import Alias, Arguments, Call, Reader
from search_spaces.aten.general import general
from search_spaces.errors import LoweringError
from search_spaces.workload import Attribute


def _unary(kind: str) -> Reader:
    return lambda a: Call(kind, (a["self"],))


def _clip(low: str, high: str) -> Reader:
    def read(a: Arguments) -> Call:
        if isinstance(a[low], torch.Tensor) or isinstance(a[high], torch.Tensor):
            return general("elementwise", "clamp")(a)
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
            raise LoweringError(f"{kind} in place with {a['alpha']=} is not in the vocabulary; multiply first")
        if a.get("rounding_mode") is not None:
            return general("elementwise", f"div_{a['rounding_mode']}")(a)
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


def _celu(a: Arguments) -> Call:
    """Read CELU as what it is: an ELU whose exponent is divided by its height."""
    alpha = float(a["alpha"])
    factors: dict[str, Attribute] = {"alpha": alpha, "scale": 1.0, "input_scale": 1.0 / alpha}
    return Call("elementwise", (a["self"],), attributes={"function": "elu", **factors})


def _cast(a: Arguments) -> Call | Alias:
    """Read a change of type, which only truth values survive to feel: floats are floats until a plan says otherwise."""
    if a["self"].dtype is torch.bool and a["dtype"] not in (None, torch.bool):
        return Call("elementwise", (a["self"],), attributes={"function": "cast"})
    return Alias(a["self"])


_GENERAL = {
    **{name: name for name in (
        "elu", "softplus", "mish", "softshrink", "hardshrink", "threshold",
        "log", "log2", "log10", "log1p", "exp2", "expm1", "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
        "cosh", "erf", "floor", "ceil", "round", "trunc", "frac", "sign",
        "maximum", "minimum", "where", "masked_fill", "atan2", "fmod", "remainder", "floor_divide", "hypot",
        "addcmul", "addcdiv", "lerp", "tril", "triu",
        "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "logical_xor",
        "isnan", "isinf",
    )},
    "_prelu_kernel": "prelu",
    "log_sigmoid_forward": "log_sigmoid",
    "fmax": "maximum",
    "fmin": "minimum",
}  # fmt: skip
"""Functions of the general kind by aten name."""

READERS: dict[str, Reader] = {
    **{name: general("elementwise", function) for name, function in _GENERAL.items()},
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
    "clamp_max": lambda a: _clip("min", "max")({**a, "min": None}),
    "celu": _celu,
    "_to_copy": _cast,
}
