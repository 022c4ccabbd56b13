import pytest

from latency_models.graph import GraphInput, int8_model
from nas.export.audit import audit
from search_spaces.lowering import lower
from search_spaces.precision import QuantizationPlan, with_precision
from tests.nas.export.networks import NETWORKS

NETWORK = lower(NETWORKS["mobilenet_v3"])


@pytest.fixture
def write(tmp_path):
    def written(plan):
        path = tmp_path / "model.onnx"
        path.write_bytes(int8_model(NETWORK, plan=plan, graph_input=GraphInput()).SerializeToString())
        return path

    return written


def test_audit_of_a_float_file_finds_every_product_in_float(mobile):
    workload = mobile.candidate.replace(quantization=None).workload()
    found = audit(mobile.exported.files[0].path, workload)
    products = sum(op.kind in ("conv", "linear") for op in workload)
    assert found.float_convs + found.float_products == products == found.kept_float
    assert found.quantized_convs == found.quantized_products == 0
    assert sum(found.operators.values()) >= products


def test_float_file_is_no_int8_file(mobile):
    found = audit(mobile.exported.files[0].path, mobile.candidate.workload())
    assert found.kept_float == 0
    assert not found.is_quantized
    assert "0 matrix products in 8 bits" in found.sentence()


def test_what_the_plan_keeps_float_is_forgiven_and_no_more(write):
    kept = ("stages.1.1.expand.conv", "stages.1.1.depthwise.conv", "stages.1.1.project.conv")
    plan = QuantizationPlan(keep_float=kept)
    path = write(plan)
    found = audit(path, with_precision(NETWORK, plan))
    assert found.kept_float == 3
    assert found.float_convs == 3
    assert found.is_quantized
    assert "3 in float (3 by plan)" in found.sentence()
    assert not audit(path, with_precision(NETWORK, QuantizationPlan())).is_quantized


def test_optimized_graph_is_kept_on_request_only(write):
    path = write(QuantizationPlan())
    workload = with_precision(NETWORK, QuantizationPlan())
    assert audit(path, workload).optimized == ""
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    kept = audit(path, workload, keep=True).optimized
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(["model.onnx", kept])
