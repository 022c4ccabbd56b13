"""What holds for every registered block once it is written as ONNX, with real weights and measured ranges."""

import pytest
import torch

from latency_models.graph import float_model
from search_spaces.lowering import lower_block
from search_spaces.precision import QuantizationPlan
from search_spaces.workload import Workload
from tests.contracts.examples import EXAMPLES
from tests.latency_models.graph.running import (
    NORMALIZED,
    assert_equal,
    cosine,
    executed,
    float_weights,
    images,
    outputs,
    quantized,
    run,
    settled,
    state,
)

CASES = [
    pytest.param(block, shape, id=f"{name}-{number}")
    for name, examples in EXAMPLES.items()
    for number, (block, shape) in enumerate(examples)
]


@pytest.fixture
def built(block, shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return settled(block.build(shape), shape)


@pytest.fixture
def workload(block, shape):
    return Workload((lower_block(block, shape),), ("",))


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_written_float_block_equals_torch(block, shape, built, workload):
    x = images(shape)
    assert_equal(run(float_model(workload, weights=state(built), graph_input=NORMALIZED), x), outputs(built, x))


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_written_int8_block_agrees_and_runs_in_integers(block, shape, built, workload, tmp_path):
    x = images(shape)
    model = quantized(workload, state(built), x)
    assert cosine(run(model, x), outputs(built, x)) >= 0.99
    assert float_weights(executed(model, tmp_path)) == {}


@pytest.mark.parametrize(("block", "shape"), CASES)
def test_signed_int8_block_agrees_and_runs_in_integers_where_the_runtime_allows(
    block, shape, built, workload, tmp_path
):
    x, signed = images(shape), {"session.qdqisint8allowed": "1"}
    model = quantized(workload, state(built), x, plan=QuantizationPlan(activation="int8"))
    assert cosine(run(model, x, config=signed), outputs(built, x)) >= 0.99
    assert float_weights(executed(model, tmp_path, config=signed)) == {}
