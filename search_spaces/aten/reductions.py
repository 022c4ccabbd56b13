"""Reductions and pooling.

Those with 8-bit kernels are kinds of their own; all others are one kind, `reduction`, whose attribute `function`
says which.
"""

from typing import Any

from search_spaces.aten.calls import Arguments, Call, Reader
from search_spaces.aten.general import general
from search_spaces.workload import Attribute


def _axes(a: Arguments) -> tuple[int, ...]:
    """Return the reduced axes; an overload without `dim` reduces all, as does an empty one."""
    rank, dim = a["self"].ndim, a.get("dim")
    wanted = (dim,) if isinstance(dim, int) else (dim or range(rank))
    return tuple(sorted(axis % rank for axis in wanted))


def _reduce(kind: str) -> Reader:
    def read(a: Arguments) -> Call:
        x, axes, keep = a["self"], _axes(a), bool(a.get("keepdim", False))
        if kind == "mean" and x.ndim == 4 and axes == (2, 3):
            return Call("global_avg_pool", (x,), attributes={"keepdim": keep})
        return Call(kind, (x,), attributes={"axes": axes, "keepdim": keep})

    return read


def _general_reduce(function: str) -> Reader:
    def read(a: Arguments) -> Call:
        call = general("reduction", function)(a)
        known = {name: value for name, value in call.attributes.items() if name not in ("dim", "keepdim")}
        axes: dict[str, Attribute] = {"axes": _axes(a), "keepdim": bool(a.get("keepdim", False))}
        return Call("reduction", call.inputs, attributes=known | axes)

    return read


def _pair(value: Any, default: Any = None) -> tuple[int, int]:  # Any: torch gives [], [n] or [n, m]
    items = list(value) or list(default or (0,))
    return (int(items[0]), int(items[-1]))


def _window(a: Arguments) -> dict[str, Attribute]:
    kernel = _pair(a["kernel_size"])
    return {"kernel": kernel, "stride": _pair(a["stride"], kernel), "padding": _pair(a["padding"])}


def _adds_a_window(a: Arguments) -> bool:
    """Tell whether `ceil_mode` makes the output larger: a last window then hangs over the end of the map."""
    if not a["ceil_mode"]:
        return False
    kernel = _pair(a["kernel_size"])
    stride, padding = _pair(a["stride"], kernel), _pair(a["padding"])
    for size, k, s, p in zip(a["self"].shape[-2:], kernel, stride, padding, strict=True):
        over = (size + 2 * p - k) % s
        windows = (size + 2 * p - k) // s + 1
        if over and windows * s < size + p:  # torch drops a window that would begin beyond the map
            return True
    return False


def _max_pool(a: Arguments) -> Call:
    if _pair(a["dilation"]) != (1, 1) or a["self"].ndim != 4:
        return general("reduction", "max_pool")(a)
    over: dict[str, Attribute] = {"ceil": True} if _adds_a_window(a) else {}
    return Call("max_pool", (a["self"],), attributes=_window(a) | over)


def _avg_pool(a: Arguments) -> Call:
    over = _adds_a_window(a)
    padded = any(_pair(a["padding"]))
    if a["divisor_override"] is not None or a["self"].ndim != 4 or (over and padded and a["count_include_pad"]):
        return general("reduction", "avg_pool")(a)
    attributes = _window(a) | {"count_padding": bool(a["count_include_pad"]) and not over}
    return Call("avg_pool", (a["self"],), attributes=attributes | ({"ceil": True} if over else {}))


def _adaptive_avg_pool(a: Arguments) -> Call:
    x, (height, width) = a["self"], tuple(a["output_size"])
    if x.ndim != 4 or x.shape[2] % height or x.shape[3] % width:
        return general("reduction", "adaptive_avg_pool")(a)
    kernel = (x.shape[2] // height, x.shape[3] // width)
    attributes: dict[str, Attribute] = {
        "kernel": kernel, "stride": kernel, "padding": (0, 0), "count_padding": True,
    }  # fmt: skip
    return Call("avg_pool", (x,), attributes=attributes)


def _adaptive_max_pool(a: Arguments) -> Call:
    x, (height, width) = a["self"], tuple(a["output_size"])
    if x.ndim != 4 or x.shape[2] % height or x.shape[3] % width:
        return general("reduction", "adaptive_max_pool")(a)
    if (height, width) == (1, 1):
        return Call("amax", (x,), attributes={"axes": (2, 3), "keepdim": True})
    kernel = (x.shape[2] // height, x.shape[3] // width)
    return Call("max_pool", (x,), attributes={"kernel": kernel, "stride": kernel, "padding": (0, 0)})


READERS: dict[str, Reader] = {
    **{name: _general_reduce(name) for name in (
        "amin", "prod", "var", "std", "logsumexp", "argmax", "argmin", "any", "all",
    )},
    "linalg_vector_norm": _general_reduce("vector_norm"),
    "min": _general_reduce("amin"),
    "max": _reduce("amax"),
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("amax"),
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": general("reduction", "max_pool"),
    "avg_pool2d": _avg_pool,
    "avg_pool3d": general("reduction", "avg_pool"),
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
}  # fmt: skip
