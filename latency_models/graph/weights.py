"""Stored tensors of an operator: real ones with batch normalization folded in, or random ones of the same shapes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from search_spaces.workload import Op, Parameter

Array = npt.NDArray[Any]  # Any: floats nearly always, integers for indices

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Tensors by their names in the module's state dict, as the parameters of `Workload.flat()` have them."""


class Stored(NamedTuple):
    """What an operator reads besides tensors: see `network.Layer`."""

    weight: Array | None
    bias: Array | None
    constants: Mapping[int, Array]


def fold(op: Op, weights: Weights) -> Stored:
    """Return the stored tensors of an operator, in float32, batch normalization folded in.

    Raises:
        ValueError: A tensor is missing, or has another shape than the workload says.
    """
    by_role = {known.role: _look_up(known, op, weights) for known in op.parameters if known.role != "operand"}
    operands = [_look_up(known, op, weights) for known in op.parameters if known.role == "operand"]
    weight, bias = by_role.get("weight"), by_role.get("bias")
    if weight is not None:
        weight = _standard_weight(op, weight)
    if any(role.startswith("norm_") for role in by_role):
        weight, bias = _fold_norm(op, weight, bias, by_role)
    constants = _constants(op, operands)
    if "index" in by_role:
        constants[1] = by_role["index"]
    return Stored(_float32(weight), _float32(bias), constants)


def draw(op: Op, rng: np.random.Generator) -> Stored:
    """Return random tensors of the shapes an operator has after folding.

    Weights have the variance of He et al. 2015 (arXiv:1502.01852), uniform where theirs are normal, since those take
    a third of the time to draw. Scales lie around 1 and shifts around 0. The values of a network thus stay far from
    overflow, and from denormal numbers, which would cost time that trained ones do not.
    """
    known = {parameter.role: parameter for parameter in op.parameters}
    weight = bias = None
    if op.kind in ("conv", "conv_transpose", "linear"):
        shape = known["weight"].shape
        if op.kind == "linear" and op.attribute("transposed_weight"):
            shape = shape[::-1]
        weight = _uniform(0.0, math.sqrt(6.0 / math.prod(shape[1:])), shape, rng)
        weight = weight if op.kind == "linear" else _standard_weight(op, weight)
        if "bias" in known or "norm_mean" in known:
            bias = _uniform(0.0, 0.2, (op.output.shape[1] if op.kind == "conv_transpose" else shape[0],), rng)
    elif op.kind in ("batch_norm", "layer_norm"):
        shape = known["norm_mean"].shape if op.kind == "batch_norm" else op.input.shape[-op.integer("axes") :]
        weight, bias = _uniform(1.0, 0.2, shape, rng), _uniform(0.0, 0.2, shape, rng)
    elif op.kind == "group_norm":
        weight, bias = (_uniform(center, 0.2, (op.input.shape[1],), rng) for center in (1.0, 0.0))
    center = 1.0 if op.kind in ("mul", "div", "pow") else 0.0
    operands = [
        _uniform(center, 0.2, parameter.shape, rng) for parameter in op.parameters if parameter.role == "operand"
    ]
    constants = _constants(op, operands)
    if "index" in known:
        length, choices = known["index"].elements, op.input.shape[op.integer("axis")]
        picked = rng.permutation(choices) if length == choices else rng.integers(choices, size=length)
        constants[1] = picked.reshape(known["index"].shape)
    return Stored(weight, bias, constants)


def _uniform(center: float, reach: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return numbers less than `reach` from `center`."""
    drawn = rng.random(shape, np.float32)
    drawn *= np.float32(2.0 * reach)
    drawn += np.float32(center - reach)
    return drawn


def _look_up(parameter: Parameter, op: Op, weights: Weights) -> Array:
    if parameter.name not in weights:
        raise ValueError(f"weights lack {parameter.name!r}, which {op.kind} in {op.scope!r} reads as {parameter.role}")
    array = np.asarray(weights[parameter.name])
    if array.shape != parameter.shape:
        raise ValueError(f"{parameter.name!r} must have shape {parameter.shape}, weights have {array.shape}")
    return array


def _standard_weight(op: Op, weight: Array) -> Array:
    """Return the weight as `out x in ...`; a convolution may read a view of its parameter."""
    if op.kind == "linear":
        return weight.T if op.attribute("transposed_weight") else weight
    if op.kind == "conv":
        groups, kernel = op.integer("groups"), op.integers("kernel")
        return weight.reshape(op.output.shape[1], op.input.shape[1] // groups, *kernel)
    if op.kind == "conv_transpose":
        groups, kernel = op.integer("groups"), op.integers("kernel")
        return weight.reshape(op.input.shape[1], op.output.shape[1] // groups, *kernel)
    return weight


def _fold_norm(op: Op, weight: Array | None, bias: Array | None, by_role: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return weight and bias, in double, of an operator followed by its batch normalization, or of that alone."""
    mean = by_role["norm_mean"].astype(np.float64)
    eps = op.number("norm_eps" if op.kind != "batch_norm" else "eps")
    factor = 1.0 / np.sqrt(by_role["norm_var"].astype(np.float64) + eps)
    if "norm_weight" in by_role:
        factor = factor * by_role["norm_weight"]
    shift = ((0.0 if bias is None else bias) - mean) * factor
    if "norm_bias" in by_role:
        shift = shift + by_role["norm_bias"]
    if weight is not None and op.kind == "conv_transpose":  # whose second axis are the output channels of a group
        groups = op.integer("groups")
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        return (by_group * factor.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape), shift
    return factor if weight is None else scale_channels(weight, factor), shift


def scale_channels(weight: Array, factor: Array) -> Array:
    """Return `weight` with every output channel multiplied by its factor."""
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def _float32(array: Array | None) -> Array | None:
    return None if array is None else array.astype(np.float32, copy=False)


def _constants(op: Op, operands: list[Array]) -> dict[int, Array]:
    """Return stored operands and scalars by position, in the shape in which they are read."""
    attributes = dict(op.attributes)
    if "scalar" in attributes:
        return {0 if attributes.get("reverse") else 1: np.array(op.number("scalar"), np.float32)}
    if not operands:
        return {}
    if "operand_shape" in attributes:
        operands = [operands[0].reshape(op.integers("operand_shape"))]
    positions = op.integers("operand_positions")
    return {place: operand.astype(np.float32) for place, operand in zip(positions, operands, strict=True)}
