import json

import numpy as np
import onnx
import pytest

from latency_models.graph import stored_bytes
from nas.candidate import Candidate
from nas.export.manifest import counted, read_exported, sha256
from nas.export.onnx import OnnxExporter
from nas.export.parity import require_parity
from nas.export.running import run_file
from nas.protocols import EXPORTERS, ExportContext
from nas.train.evaluate import predict
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import build
from search_spaces.errors import DataError, LoweringError
from search_spaces.lowering import lower
from search_spaces.memory import peak_bytes
from search_spaces.precision import QuantizationPlan, with_precision
from tests.nas.export.conftest import RULES
from tests.nas.export.networks import PER_CHANNEL, VALIDATION


def test_exporter_is_registered():
    assert EXPORTERS.get("onnx") is OnnxExporter


def test_float_file_computes_what_the_network_computes(delivered, task):
    file = delivered.exported.files[0]
    assert file.path.name == "model.onnx"
    expected = predict(delivered.candidate.module, task.validation.images, task.preprocessing, device="cpu")
    found = run_file(file.path, task.validation.images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert file.parity.passed
    assert file.parity.images == VALIDATION
    assert file.parity.agreement == 1.0


def test_int8_file_agrees_with_the_network_and_leaves_nothing_in_float(delivered, task):
    exported = delivered.exported
    assert exported.model.name == "model.int8.onnx"
    assert exported.precision == "int8"
    assert exported.parity.agreement >= 0.97
    audit = exported.manifest["files"][-1]["audit"]
    heavy = [op.kind for op in delivered.candidate.workload() if op.kind in ("conv", "linear")]
    assert exported.files[-1].float_operators == 0
    assert audit["quantized_convs"] == heavy.count("conv")
    assert audit["quantized_products"] == heavy.count("linear")
    require_parity(exported)


def test_files_are_as_small_as_their_weights_say(delivered):
    for file, plan in zip(delivered.exported.files, (None, QuantizationPlan()), strict=True):
        stored = stored_bytes(lower(delivered.candidate.architecture), plan)
        entry = next(entry for entry in delivered.exported.manifest["files"] if entry["name"] == file.path.name)
        model = onnx.load(file.path)
        metadata = sum(len(item.value) for item in model.metadata_props)
        nodes = sum(node.ByteSize() for node in model.graph.node)
        assert entry["figures"]["weight_bytes"]["value"] == stored
        # What is not weights, metadata or nodes: names and shapes of initializers, padding of depthwise channels.
        assert file.num_bytes == file.path.stat().st_size
        assert stored <= file.num_bytes - metadata - nodes <= 1.25 * stored + 9000
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert not model.graph.value_info


def test_folder_reads_back_as_what_was_returned(delivered):
    again = read_exported(delivered.exported.folder)
    assert again.files == delivered.exported.files
    assert again.manifest == json.loads(json.dumps(delivered.exported.manifest))
    assert [file.sha256 for file in again.files] == [sha256(file.path) for file in again.files]


def test_manifest_says_what_the_network_is_and_costs(mobile, task):
    manifest, candidate = mobile.exported.manifest, mobile.candidate
    metadata = manifest["metadata"]
    assert manifest["model"] == "model.int8.onnx"
    assert metadata["architecture"] == candidate.architecture.to_dict()
    assert metadata["architecture_key"] == candidate.architecture.key
    assert (metadata["task"], metadata["data_hash"]) == (task.name, task.data_hash)
    assert metadata["decoding"] == list(RULES)
    assert {"torch", "onnx", "onnxruntime"} <= metadata["tools"].keys()
    raw = lower(candidate.architecture)
    for entry, plan in zip(manifest["files"], (None, candidate.quantization), strict=True):
        known = {name: figure.to_dict() for name, figure in counted(raw, plan).items()}
        assert entry["figures"] == known
        assert all(figure["origin"] == "counted" for figure in known.values())
    peaks = [entry["figures"]["peak_memory_bytes"]["value"] for entry in manifest["files"]]
    assert peaks[0] == 4 * peak_bytes(with_precision(raw, candidate.quantization))
    assert peaks[0] / 4 <= peaks[1] <= peaks[0] / 4 * 1.5  # padding of depthwise channels


def test_manifest_and_card_say_what_the_devices_runtime_needs(untrained, task, tmp_path):
    blocks = Conv(width=12), InvertedResidual(width=12, hidden=40), Classifier(classes=len(task.classes))
    architecture = Architecture(untrained.preprocessing.input_shape, tuple((block,) for block in blocks))
    candidate = untrained.replace(
        architecture=architecture, module=build(architecture), quantization=QuantizationPlan(pad_depthwise=False)
    )
    exporter, context = OnnxExporter(parity_images=4), ExportContext(in_place=True)
    exported = exporter.export(candidate, task, tmp_path, context)
    said = exported.manifest["files"][-1]["figures"]["peak_memory_bytes"]["value"]
    raw, plan = lower(architecture), candidate.quantization
    assert said == counted(raw, plan, in_place=True)["peak_memory_bytes"].value
    assert said == peak_bytes(with_precision(raw, plan), in_place=True) < peak_bytes(with_precision(raw, plan))
    assert f"{said:,.0f}" in (tmp_path / "model_card.md").read_text()


def test_optimized_graph_is_kept_beside_the_int8_file_under_the_name_of_its_runtime(mobile):
    name = mobile.exported.manifest["files"][-1]["audit"]["optimized"]
    assert "onnxruntime-" in name
    kept = onnx.load(mobile.exported.folder / name)
    assert "QLinearConv" in {node.op_type for node in kept.graph.node}
    assert mobile.exported.manifest["files"][0]["audit"]["optimized"] == ""


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_every_form_of_the_input_gives_the_logits_of_the_network(untrained, task, tmp_path, dtype, layout):
    candidate = untrained.replace(quantization=QuantizationPlan())
    exported = OnnxExporter(input=dtype, layout=layout).export(candidate, task, tmp_path)
    expected = predict(untrained.module, task.validation.images, PER_CHANNEL, device="cpu")
    shapes = {"nhwc": [1, 16, 24, 3], "nchw": [1, 3, 16, 24]}
    for file, tolerance in zip(exported.files, (1e-5, 0.1), strict=True):
        given = onnx.load(file.path).graph.input[0]
        assert [axis.dim_value for axis in given.type.tensor_type.shape.dim] == shapes[layout]
        assert given.type.tensor_type.elem_type == {"uint8": 2, "float32": 1}[dtype]
        found = run_file(file.path, task.validation.images)
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def any_batch(untrained, task, tmp_path_factory):
    candidate = untrained.replace(quantization=QuantizationPlan())
    return OnnxExporter(dynamic_batch=True).export(candidate, task, tmp_path_factory.mktemp("any-batch"))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_dynamic_file_takes_any_batch(any_batch, untrained, images, batch):
    expected = predict(untrained.module, images, PER_CHANNEL, device="cpu")
    float_file, int8_file = (run_file(file.path, images, batch=batch) for file in any_batch.files)
    assert np.abs(float_file - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.array_equal(int8_file, run_file(any_batch.files[1].path, images, batch=1))


@pytest.mark.parametrize(
    ("opset", "ir_version", "written"),
    [(17, 8, (17, 8)), (18, 13, (18, 8)), (15, 7, (14, 7)), (23, 13, (18, 8))],
    ids=["older opset", "newer IR", "IR that holds no such opset", "newer opset"],
)
def test_files_keep_to_the_limits_of_the_runtime(untrained, task, tmp_path, opset, ir_version, written):
    candidate = untrained.replace(quantization=QuantizationPlan())
    limits = ExportContext(opset=opset, ir_version=ir_version)
    exported = OnnxExporter(parity_images=16).export(candidate, task, tmp_path, limits)
    for file, entry in zip(exported.files, exported.manifest["files"], strict=True):
        model = onnx.load(file.path)
        assert (model.opset_import[0].version, model.ir_version) == written == (entry["opset"], entry["ir_version"])
        assert len(model.opset_import) == 1
        assert file.parity.max_abs_difference < 0.1 * file.parity.max_abs_logit


def test_runtime_too_old_for_any_file_is_named(untrained, task, tmp_path):
    with pytest.raises(LoweringError, match="opset 12 and IR version 8 at most, networks need opset 13"):
        OnnxExporter().export(untrained, task, tmp_path, ExportContext(opset=12))


def test_network_without_an_architecture_is_exported(untrained, task, tmp_path):
    candidate = untrained.replace(architecture=None, quantization=QuantizationPlan())
    exported = OnnxExporter().export(candidate, task, tmp_path)
    assert exported.manifest["metadata"]["architecture"] is None
    assert exported.files[0].parity.passed
    assert exported.files[1].float_operators == 0
    assert exported.parity.relative_rms < 0.1


def test_export_leaves_the_candidate_as_it_was(untrained, task, tmp_path):
    before = {name: tensor.clone() for name, tensor in untrained.module.state_dict().items()}
    training = [module.training for module in untrained.module.modules()]
    OnnxExporter(parity_images=4).export(untrained, task, tmp_path)
    assert training == [module.training for module in untrained.module.modules()]
    assert all((before[name] == tensor).all() for name, tensor in untrained.module.state_dict().items())


def test_same_candidate_gives_the_same_bytes_and_replaces_an_earlier_export(untrained, task, tmp_path):
    exporter, quantized = OnnxExporter(parity_images=4), untrained.replace(quantization=QuantizationPlan())
    first = exporter.export(quantized, task, tmp_path)
    again = exporter.export(quantized, task, tmp_path)
    assert [file.sha256 for file in again.files] == [file.sha256 for file in first.files]
    exporter.export(untrained, task, tmp_path)
    assert not first.model.exists()
    assert [file.path.name for file in read_exported(tmp_path).files] == ["model.onnx"]


def test_quantized_candidate_needs_calibration_images(untrained, task, tmp_path):
    empty = task.replace(
        calibration=type(task.calibration)("calibration", task.train.images[:0], task.train.labels[:0])
    )
    with pytest.raises(DataError, match="int8 needs calibration images"):
        OnnxExporter(parity_images=4).export(untrained.replace(quantization=QuantizationPlan()), empty, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    "options", [{"input": "int8"}, {"layout": "hwc"}, {"parity_images": 0}], ids=["input", "layout", "images"]
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        OnnxExporter(**options)


def test_progress_reaches_one(untrained, task, tmp_path):
    told = []
    context = ExportContext(progress=lambda label, share: told.append((label, share)))
    OnnxExporter(parity_images=4).export(untrained.replace(quantization=QuantizationPlan()), task, tmp_path, context)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[0] == ("exporting model.onnx", 0.0)
    assert told[-1] == ("exported", 1.0)


def test_candidate_in_float_has_one_file(untrained, task, tmp_path):
    assert isinstance(untrained, Candidate)
    exported = OnnxExporter(parity_images=4).export(untrained, task, tmp_path)
    assert exported.precision == "float32"
    assert [file.path.name for file in exported.files] == ["model.onnx"]
    assert exported.model == tmp_path / "model.onnx"
