"""The 8-bit form of every layer: which nodes stand between which quantizers."""

from collections.abc import Sequence

import numpy as np

from latency_models.graph.network import Activation, Layer, activation, pre_name
from latency_models.graph.operators import activate, write
from latency_models.graph.shared_params import needs_operator
from latency_models.graph.tensors import Tensors

_OWN_FORM = frozenset({"hard_swish", "hard_sigmoid", "sigmoid", "silu", "leaky_relu"})
"""Activations that integer kernels exist for, alone or put together."""


def write_quantized(t: Tensors, layer: Layer, *, as_float: bool) -> None:
    """Add the nodes of a layer that computes in 8 bits.

    Args:
        t: The tensors so far.
        layer: What; its activation must be expressed by its output's range or `write_activation`.
        as_float: Whether it writes floats, which linear layers do for nothing.
    """
    if layer.kind in _OWN_FORM:
        write_activation(t, activation(layer.kind, layer.attributes), layer.inputs[0], layer.output)
    elif layer.kind in ("pad", "expand"):
        _move_bytes(t, layer)
    elif as_float:
        write(t.e, layer, _operands(t, layer), layer.outputs)
        t.put_float(layer.output, layer.output)
    else:
        written = [written_name(layer)] if layer.activation else layer.outputs
        values = [f"{name}/float" for name in written]
        write(t.e, layer, _operands(t, layer), values)
        for value, name in zip(values, written, strict=True):
            t.write(value, name)
        finish_activation(t, layer)


def written_name(layer: Layer) -> str:
    """Return the name of the tensor that the layer itself writes, before an activation with an operator of its own."""
    return pre_name(layer.output) if needs_operator(layer) else layer.output


def bias_shift(layer: Layer) -> float:
    """Return what the bias takes on: a layer with a hard sigmoid writes x + 3, cut to [0, 6] by saturation."""
    return 3.0 if layer.activation is not None and layer.activation.kind == "hard_sigmoid" else 0.0


def finish_activation(t: Tensors, layer: Layer) -> None:
    """Add the nodes of a layer's activation where its range does not express it."""
    if needs_operator(layer):
        assert layer.activation is not None
        write_activation(t, layer.activation, written_name(layer), layer.output)


def write_activation(t: Tensors, cut: Activation, source: str, output: str) -> None:
    """Add the nodes of an activation of the stored tensor `source`.

    Hard-swish is a sum and a product: x + 3 saturates at 0 and 6, and the scale it is read with divides by 6. That
    is 1.3 times faster than the form runtimes' quantizers make of it and than an operator in float.
    """
    x, gate = t.read(source), f"{output}/gate"
    if cut.kind in ("hard_swish", "hard_sigmoid"):
        three = t.constant(np.array(3.0, np.float32))
        gate = gate if cut.kind == "hard_swish" else output
        t.write(t.e.op("Add", [x, three]), gate, t.scheme.gate)
    elif cut.kind in ("silu", "sigmoid"):
        gate = gate if cut.kind == "silu" else output
        t.write(t.e.op("Sigmoid", [x]), gate, t.scheme.unit)
    else:
        t.write(activate(t.e, cut, x, f"{output}/float"), output)
    if cut.kind in ("hard_swish", "silu"):
        t.write(t.e.op("Mul", [x, t.read(gate)]), output)


def _operands(t: Tensors, layer: Layer) -> Sequence[str]:
    """Return all operands as integer kernels read them."""
    operands = [t.read(name) for name in layer.inputs]
    if layer.kind == "batch_norm":
        operands += [t.e.constant(stored, "weight") for stored in (layer.weight, layer.bias) if stored is not None]
    elif layer.weight is not None:
        bias = layer.bias
        if shift := bias_shift(layer):
            bias = (np.zeros(len(layer.weight), np.float32) if bias is None else bias) + np.float32(shift)
        operands += t.weights(layer.weight, bias, t.params[layer.inputs[0]].read_scale)
    for place, constant in sorted(layer.constants.items()):
        if layer.kind == "concat":
            params = t.params[layer.output]
            stored = t.e.batched(t.scheme.quantize(constant, params), t.bytes(layer.inputs[0]))
            operands.insert(place, t.dequantized(stored, params))
        elif layer.kind != "gather":
            operands.insert(place, t.constant(constant))
    return operands


def _move_bytes(t: Tensors, layer: Layer) -> None:
    """Pad or repeat the bytes themselves: runtimes do not look for these kinds between quantizers."""
    operands = [t.bytes(layer.inputs[0])]
    if layer.kind == "pad":
        value = t.scheme.quantize(np.array(layer.number("value")), t.params[layer.output])
        operands.append(t.e.constant(value))
    moved = f"{layer.output}/bytes"
    write(t.e, layer, operands, [moved])
    t.put_bytes(layer.output, moved)
