"""The float32 file."""

from collections.abc import Sequence

import onnx

from latency_models.graph.channel_moves import fold_channel_moves
from latency_models.graph.emitter import Emitter
from latency_models.graph.graph_input import GraphInput
from latency_models.graph.image import declare, normalized
from latency_models.graph.network import INPUT, OUTPUT, Layer, Network, pre_name, read_network
from latency_models.graph.operators import activate, with_constants, write
from latency_models.graph.simplify import simplify
from latency_models.graph.weights import Weights
from search_spaces.precision import with_precision
from search_spaces.workload import Workload


def float_model(
    workload: Workload,
    *,
    graph_input: GraphInput = GraphInput(),  # noqa: B008 - frozen
    weights: Weights | None = None,
    seed: int = 0,
    opset: int = 18,
    ir_version: int = 9,
    expose: bool = False,
) -> onnx.ModelProto:
    """Return the network as a float32 ONNX model with the input "image" and the output "logits".

    Args:
        workload: The network, fused or not; dtypes it may have are ignored.
        graph_input: How the file takes an image.
        weights: Trained tensors; None for random ones, which take the same time.
        seed: Of random weights.
        opset: ONNX opset of the file; operators it lacks are written in older ones.
        ir_version: ONNX IR version of the file.
        expose: Whether every tensor that `int8_model` may need the range of is an output as well, by the name it has
            in its `ranges`.

    Raises:
        LoweringError: An operator that has no ONNX form, or that a batch other than 1 would break.
        ValueError: Weights that do not fit, an input the network does not take, an opset or IR version out of range.
    """
    e = Emitter(opset=opset, ir_version=ir_version, batch=graph_input.batch)
    network = fold_channel_moves(simplify(read_network(with_precision(workload, None), weights, seed=seed)))
    image = declare(e, graph_input, network.shapes[INPUT])
    names = {INPUT: normalized(e, graph_input, network.shapes[INPUT])}
    for layer in network.layers:
        write_float(e, layer, [names.get(name, name) for name in layer.inputs])
    if network.output != OUTPUT:
        e.op("Identity", [names.get(network.output, network.output)], OUTPUT)
    outputs = [e.output_value(OUTPUT, network.shapes[network.output])]
    if expose:
        outputs += [e.output_value(name, network.shapes[of]) for name, of in _exposed(network)]
    return e.model([image], outputs)


def write_float(e: Emitter, layer: Layer, inputs: Sequence[str]) -> None:
    """Add the float nodes of one layer; tensors it writes have the layer's names for them.

    Args:
        e: Where to.
        layer: What.
        inputs: Names of the float tensors it reads.
    """
    operands = with_constants(e, layer, inputs)
    operands += [e.constant(stored, "weight") for stored in (layer.weight, layer.bias) if stored is not None]
    if layer.activation is None:
        write(e, layer, operands, layer.outputs)
    else:
        before = pre_name(layer.output)
        write(e, layer, operands, [before])
        activate(e, layer.activation, before, layer.output)


def _exposed(network: Network) -> list[tuple[str, str]]:
    """Return the names of all tensors but the logits, each with the tensor whose shape it has."""
    found = []
    for layer in network.layers:
        if layer.activation is not None and not layer.activation.is_range:
            found.append((pre_name(layer.output), layer.output))
        found += [(name, name) for name in layer.outputs if name != OUTPUT]
    return found
