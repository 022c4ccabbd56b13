import math
import zlib

import numpy as np
import pytest
from onnx import numpy_helper

from latency_models.graph import int8_model, stored_bytes
from search_spaces.counts import weight_bytes
from search_spaces.lowering import lower
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


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "resnet", "efficientnet"])
def test_the_sum_over_blocks_comes_near_for_networks_without_shuffles(name):
    space = SEARCH_SPACES.get(name)()
    for row in sample(space, 4, np.random.default_rng(zlib.crc32(name.encode()))):
        workload = lower(decode(space, row))
        assert weight_bytes(with_precision(workload, PLAN)) == pytest.approx(stored_bytes(workload, PLAN), rel=0.06)
