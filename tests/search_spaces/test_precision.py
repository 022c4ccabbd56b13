from torch import nn

from search_spaces import counts, memory
from search_spaces.lowering import lower, record
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.precision import QuantizationPlan, with_precision

PLAN = QuantizationPlan()


def test_int8_activations_take_a_quarter_of_float():
    workload = lower(mobilenet_v2())
    assert memory.peak_bytes(with_precision(workload, PLAN)) * 4 == memory.peak_bytes(workload)


def test_int8_bytes_by_hand():
    # Weight 3*5 bytes, bias 5 * 4, tables of 9 bytes for each of 5 output channels.
    workload = record(nn.Linear(3, 5), (3,))
    assert counts.weight_bytes(workload) == (15 + 5) * 4
    assert counts.weight_bytes(with_precision(workload, PLAN)) == 15 + 20 + 45
    assert counts.flash_bytes(with_precision(workload, PLAN), code_bytes=1000) == 1080


def test_folded_normalization_stores_one_bias():
    workload = record(nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)), (2, 3, 3))
    assert counts.parameters(workload) == 8 + 8
    assert counts.weight_bytes(workload) == (8 + 4) * 4
    assert counts.weight_bytes(with_precision(workload, PLAN)) == 8 + 16 + 36


def test_operators_named_by_the_plan_stay_float():
    workload = lower(mobilenet_v2(classes=10, input_shape=(3, 32, 32)))
    plan = QuantizationPlan(keep_float=("stages.0.0.conv",))
    stem, *rest = with_precision(workload, plan)
    assert (stem.dtype, stem.parameters[0].dtype) == ("float32", "float32")
    assert {op.dtype for op in rest} == {"int8"}


def test_softmax_stays_float_between_quantized_layers():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Softmax(1), nn.Conv2d(4, 4, 1))
    workload = with_precision(record(module, (4, 8, 8)), PLAN)
    assert [op.dtype for op in workload] == ["int8", "float32", "int8"]
    assert [op.output.dtype for op in workload] == ["uint8", "float32", "uint8"]


def test_float_plan_only_fuses():
    workload = lower(mobilenet_v2())
    assert {op.dtype for op in with_precision(workload, None)} == {"float32"}
