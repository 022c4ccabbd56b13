"""The int8 file, in the QDQ form: float operators between QuantizeLinear and DequantizeLinear."""

from collections.abc import Mapping

import onnx

from latency_models.graph.channel_moves import fold_channel_moves
from latency_models.graph.depthwise_padding import pad_depthwise
from latency_models.graph.emitter import Emitter
from latency_models.graph.float32 import write_float
from latency_models.graph.graph_input import GraphInput
from latency_models.graph.image import declare
from latency_models.graph.int8_forms import write_quantized
from latency_models.graph.int8_kernels import use_depthwise_kernels
from latency_models.graph.islands import place_islands
from latency_models.graph.network import INPUT, OUTPUT, Layer, Network, read_network
from latency_models.graph.pixels import image_params, is_stem, open_image, read_pixels
from latency_models.graph.quantizers import Scheme
from latency_models.graph.ranges import Ranges, invented_ranges
from latency_models.graph.shared_params import tensor_params, writes_float
from latency_models.graph.simplify import simplify
from latency_models.graph.stem import write_stem
from latency_models.graph.tensors import Tensors
from latency_models.graph.weights import Weights
from search_spaces.architecture import Shape
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.workload import Workload


def int8_model(
    workload: Workload,
    *,
    plan: QuantizationPlan,
    graph_input: GraphInput = GraphInput(),  # noqa: B008 - frozen
    weights: Weights | None = None,
    ranges: Ranges | None = None,
    seed: int = 0,
    opset: int = 18,
    ir_version: int = 9,
) -> onnx.ModelProto:
    """Return the network as an int8 ONNX model with the input "image" and float "logits".

    Which operators compute in 8 bits is what `with_precision(workload, plan)` says, less those that runtimes have no
    fast kernel for (`islands`). Every convolution of `plan` runs in integers under onnxruntime: no activation stands
    between it and its quantizer, since the range of an 8-bit tensor cuts as ReLU does.

    Args:
        workload: The network, fused or not; its dtypes are set here.
        plan: The 8-bit scheme.
        graph_input: How the file takes an image.
        weights: Trained tensors; None for random ones, which take the same time.
        ranges: Values of tensors, measured on `float_model(..., expose=True)` of the same workload; None for invented
            ones, which take the same time.
        seed: Of random weights.
        opset: ONNX opset of the file; operators it lacks are written in older ones.
        ir_version: ONNX IR version of the file.

    Raises:
        LoweringError: An operator that has no ONNX form, or that a batch other than 1 would break.
        ValueError: Weights or ranges that do not fit, an input the network does not take, an opset or IR version out
            of range.
    """
    e = Emitter(opset=opset, ir_version=ir_version, batch=graph_input.batch)
    scheme = Scheme.of(plan)
    network = prepared_network(workload, plan, weights=weights, seed=seed)
    shape = network.shapes[INPUT]
    declared = declare(e, graph_input, shape)
    known = invented_ranges(network) if ranges is None else ranges
    pixels = read_pixels(graph_input, shape, scheme, known)
    readers = [layer for layer in network.layers if INPUT in layer.inputs]
    image = image_params(pixels, graph_input, shape, scheme, readers)
    t = Tensors(e, scheme, tensor_params(network, known, scheme, image=image))
    open_image(t, pixels, graph_input, shape, readers)
    floats = writes_float(network)
    for layer in network.layers:
        if not layer.quantized:
            _write_island(t, layer, network.shapes)
        elif is_stem(layer):
            write_stem(t, pixels, layer, shape, network.shapes[layer.output])
        else:
            write_quantized(t, layer, as_float=layer.output in floats)
    _close(t, network.output)
    return e.model([declared], [e.output_value(OUTPUT, network.shapes[network.output])])


def prepared_network(
    workload: Workload, plan: QuantizationPlan, *, weights: Weights | None = None, seed: int = 0
) -> Network:
    """Return the layers of an int8 file after all rewrites, with the given weights or random ones."""
    network = simplify(read_network(with_precision(workload, plan), weights, seed=seed))
    network = fold_channel_moves(use_depthwise_kernels(place_islands(network)))
    return pad_depthwise(network) if plan.pad_depthwise else network


def _write_island(t: Tensors, layer: Layer, shapes: Mapping[str, Shape]) -> None:
    """Add a layer that computes in float."""
    if layer.kind in ("conv", "linear"):
        inputs = [t.floats_beside_weights(name, shapes[name][1]) for name in layer.inputs]
    else:
        inputs = [t.floats(name) for name in layer.inputs]
    write_float(t.e, layer, inputs)
    for name in layer.outputs:
        t.put_float(name, name)


def _close(t: Tensors, name: str) -> None:
    """Let the result, the tensor `name`, be the file's output in floats."""
    if not t.has_floats(name):
        t.dequantized(t.bytes(name), t.params[name], OUTPUT)
    elif name != OUTPUT:
        t.e.op("Identity", [t.floats(name)], OUTPUT)
