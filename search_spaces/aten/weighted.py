"""Operators with weights, and products of two activations."""

from search_spaces.aten.calls import Arguments, Call, Reader
from search_spaces.errors import LoweringError
from search_spaces.workload import Attribute


def _convolution(a: Arguments) -> Call:
    weight, transposed = a["weight"], bool(a["transposed"])
    if weight.ndim != 4:
        raise LoweringError(
            f"convolutions over {weight.ndim - 2} axes are not in the vocabulary; fold one axis into the channels"
        )
    parameters = [("weight", weight)] + ([("bias", a["bias"])] if a["bias"] is not None else [])
    attributes: dict[str, Attribute] = {
        "kernel": tuple(weight.shape[2:]),
        "stride": tuple(a["stride"]),
        "padding": tuple(a["padding"]),
        "dilation": tuple(a["dilation"]),
        "groups": int(a["groups"]),
    }
    if transposed:
        attributes["output_padding"] = tuple(a["output_padding"])
    return Call("conv_transpose" if transposed else "conv", (a["input"],), tuple(parameters), attributes)


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


def _group_norm(a: Arguments) -> Call:
    parameters = tuple((role, a[role]) for role in ("weight", "bias") if a[role] is not None)
    return Call("group_norm", (a["input"],), parameters, {"groups": int(a["group"]), "eps": float(a["eps"])})


def _addmm(a: Arguments) -> Call:
    if a["beta"] != 1 or a["alpha"] != 1:
        raise LoweringError("addmm with a factor is not in the vocabulary")
    return Call("linear", (a["mat1"],), (("weight", a["mat2"]), ("bias", a["self"])))


def _mm(a: Arguments) -> Call:
    return Call("linear", (a["self"],), (("weight", a["mat2"]),))


def _matmul(a: Arguments) -> Call:
    return Call("matmul", (a["self"], a["mat2"]))


READERS: dict[str, Reader] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "addmm": _addmm,
    "mm": _mm,
    "bmm": _matmul,
}
