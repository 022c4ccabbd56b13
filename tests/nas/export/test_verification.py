import json
import shutil

import onnx
import pytest

from nas.export.verification import require_verified, verify
from search_spaces.build import build
from search_spaces.errors import ParityFailed, RunError


@pytest.fixture
def folder(mobile, tmp_path):
    return shutil.copytree(mobile.exported.folder, tmp_path / "files")


def failures(checks):
    return {(check.file, check.name): check.reason for check in checks if not check.passed}


def test_untouched_folder_passes_every_check(folder, mobile, task):
    checks = verify(folder, candidate=mobile.candidate, task=task, images=64)
    assert not failures(checks)
    assert {(check.file, check.name) for check in checks} == {
        (file, name)
        for file in ("model.onnx", "model.int8.onnx")
        for name in ("hash", "graph", "metadata", "runtime", "parity")
    }
    require_verified(checks)


def test_parity_is_left_out_without_the_network(folder):
    assert "parity" not in {check.name for check in verify(folder)}


def test_changed_byte_is_found(folder):
    data = bytearray((folder / "model.int8.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.int8.onnx").write_bytes(data)
    checks = verify(folder)
    assert ("model.int8.onnx", "hash") in failures(checks)
    with pytest.raises(RunError, match=r"model.int8.onnx: the file was changed after its export: SHA-256"):
        require_verified(checks)


def test_missing_file_is_found(folder):
    (folder / "model.onnx").unlink()
    assert failures(verify(folder)) == {("model.onnx", "hash"): "the file is missing"}


def test_truncated_file_fails_every_check_without_a_traceback(folder):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])
    found = failures(verify(folder))
    assert {name for _, name in found} == {"hash", "graph", "metadata", "runtime"}
    assert all("\n" not in reason for reason in found.values())


def test_metadata_that_disagree_with_the_manifest_are_named(folder):
    model = onnx.load(folder / "model.onnx")
    classes = next(item for item in model.metadata_props if item.key == "classes")
    classes.value = json.dumps(json.loads(classes.value)[::-1])
    onnx.save(model, folder / "model.onnx")
    found = failures(verify(folder))
    assert found["model.onnx", "metadata"] == "classes in the file and in the manifest are not the same"


def test_other_opset_than_the_manifest_says_is_named(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["opset"] = 17
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "expected (17, 8)" in failures(verify(folder))["model.onnx", "graph"]


def test_file_of_another_network_fails_parity(folder, mobile, task):
    stranger = mobile.candidate.replace(module=build(mobile.candidate.architecture, seed=9).eval())
    checks = verify(folder, candidate=stranger, task=task, images=64)
    assert {name for _, name in failures(checks)} == {"parity"}
    with pytest.raises(ParityFailed, match=r"model.onnx: logits differ by up to"):
        require_verified(checks)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 7}', "[1]"], ids=["empty", "no format", "newer", "list"])
def test_folder_without_a_readable_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(RunError, match="manifest"):
        verify(folder)
