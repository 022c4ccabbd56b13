import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper, shape_inference

from latency_models.graph import GraphInput, file_workload, int8_model, stored_bytes
from search_spaces.counts import weight_bytes
from search_spaces.lowering import lower
from search_spaces.memory import peak_bytes
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.space import SEARCH_SPACES, decode, sample

PLAN = QuantizationPlan()


def initializer_bytes(model):
    return sum(math.prod(tensor.dims) * numpy_helper.to_array(tensor).itemsize for tensor in model.graph.initializer)


@pytest.mark.parametrize(
    "plan", [PLAN, QuantizationPlan(activation="int8", per_channel=False)], ids=["default", "tensor"]
)
@pytest.mark.parametrize("name", SEARCH_SPACES.names())
def test_counted_bytes_are_those_of_the_files_initializers(name, plan):
    space = SEARCH_SPACES.get(name)()
    for row in sample(space, 3, np.random.default_rng(zlib.crc32(name.encode()))):
        workload = lower(decode(space, row))
        assert stored_bytes(workload, plan) == pytest.approx(
            initializer_bytes(int8_model(workload, plan=plan)), rel=0.01
        )


def file_peak_bytes(model):
    """Return the bytes alive at once by the graph's shapes: floats and bytes of one tensor count once, as bytes."""
    graph = shape_inference.infer_shapes(model).graph
    stored = {tensor.name for tensor in graph.initializer}
    described = (*graph.input, *graph.value_info, *graph.output)
    size = {v.name: math.prod(max(axis.dim_value, 1) for axis in v.type.tensor_type.shape.dim) for v in described}
    same = {}
    for node in graph.node:
        if stored.issuperset(node.input):
            stored.update(node.output)  # the floats of weights
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Reshape", "Identity") and node.input[0] in size:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    alive = [
        (
            {same.get(name, name) for name in node.input if name in size and name not in stored},
            {same.get(name, name) for name in node.output},
        )
        for node in graph.node
        if node.output[0] not in same and node.output[0] not in stored
    ]
    last = {name: step for step, (read, written) in enumerate(alive) for name in read | written}
    first = {name: step for step, (read, written) in reversed([*enumerate(alive)]) for name in read | written}
    return max(sum(size[name] for name in last if first[name] <= step <= last[name]) for step in range(len(alive)))


@pytest.mark.parametrize("pads", [True, False], ids=["padded", "plain"])
@pytest.mark.parametrize("width", [0.1, 0.35])
def test_the_bound_of_the_files_tensors_is_that_of_its_graph(width, pads):
    workload, plan = lower(mobilenet_v2(width=width, classes=10)), replace(PLAN, pad_depthwise=pads)
    model = int8_model(workload, plan=plan, graph_input=GraphInput(dtype="float32", layout="nchw"))
    assert peak_bytes(file_workload(workload, plan)) == file_peak_bytes(model)


def test_padding_takes_memory_and_weights_that_a_plain_file_does_not():
    workload, plain = lower(mobilenet_v2(width=0.1, classes=10)), replace(PLAN, pad_depthwise=False)
    planned = peak_bytes(with_precision(workload, PLAN))
    assert peak_bytes(file_workload(workload, plain)) == planned < peak_bytes(file_workload(workload, PLAN))
    assert stored_bytes(workload, plain) < stored_bytes(workload, PLAN)


def test_a_file_without_a_plan_holds_the_fused_network():
    workload = lower(mobilenet_v2(width=0.1, classes=10))
    assert stored_bytes(workload, None) == weight_bytes(with_precision(workload, None))
    assert file_workload(workload, None) == with_precision(workload, None)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "resnet", "efficientnet"])
def test_the_sum_over_blocks_comes_near_for_networks_without_shuffles(name):
    space = SEARCH_SPACES.get(name)()
    for row in sample(space, 4, np.random.default_rng(zlib.crc32(name.encode()))):
        workload = lower(decode(space, row))
        assert weight_bytes(with_precision(workload, PLAN)) == pytest.approx(stored_bytes(workload, PLAN), rel=0.06)
