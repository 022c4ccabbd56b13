"""Operators that move elements, change their shape, or make a map larger or smaller.

Those with 8-bit kernels are kinds of their own; all others are one kind, `movement`, whose attribute `function` says
which.
"""

from search_spaces.aten.calls import Alias, Arguments, Call, Reader
from search_spaces.aten.general import general
from search_spaces.errors import LoweringError
from search_spaces.workload import Attribute


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
    """Whole factors of the two common modes are `upsample`; other sizes and modes the movement `resize`."""

    def read(a: Arguments) -> Call:
        x, size = a["self"], tuple(a["output_size"])
        corners = bool(a.get("align_corners", False))
        whole = x.ndim == 4 and not any(new % old for new, old in zip(size, x.shape[2:], strict=True))
        if whole and not corners and mode in ("nearest", "bilinear"):
            factor = (size[0] // x.shape[2], size[1] // x.shape[3])
            return Call("upsample", (x,), attributes={"mode": mode, "factor": factor})
        attributes: dict[str, Attribute] = {"function": "resize", "mode": mode, "size": size, "align_corners": corners}
        return Call("movement", (x,), attributes=attributes)

    return read


def _reshape(a: Arguments) -> Call:
    return Call("reshape", (a["self"],))


def _same(a: Arguments) -> Alias:
    return Alias(a["self"])


_GENERAL = {
    "flip": "flip",
    "reflection_pad1d": "reflection_pad",
    "reflection_pad2d": "reflection_pad",
    "replication_pad1d": "replication_pad",
    "replication_pad2d": "replication_pad",
    "im2col": "im2col",
    "col2im": "col2im",
    "unfold": "unfold",
    "grid_sampler_2d": "grid_sample",
    "diagonal": "diagonal",
}
"""Functions of the general kind by aten name."""

READERS: dict[str, Reader] = {
    **{name: general("movement", function) for name, function in _GENERAL.items()},
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
    "lift_fresh": _same,
    "upsample_nearest1d": _upsample("nearest"),
    "upsample_nearest2d": _upsample("nearest"),
    "_upsample_nearest_exact1d": _upsample("nearest_exact"),
    "_upsample_nearest_exact2d": _upsample("nearest_exact"),
    "upsample_linear1d": _upsample("bilinear"),
    "upsample_bilinear2d": _upsample("bilinear"),
    "upsample_bicubic2d": _upsample("bicubic"),
    "_upsample_bilinear2d_aa": _upsample("bilinear_antialias"),
    "_upsample_bicubic2d_aa": _upsample("bicubic_antialias"),
}
