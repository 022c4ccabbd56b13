from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nas.candidate import Exported
from nas.export.manifest import read_parities, write_parities
from nas.export.parity import compare, judge, require_parity
from search_spaces.errors import ParityFailed


@pytest.fixture
def logits(rng):
    return rng.standard_normal((300, 10)).astype(np.float32)


def test_equal_logits_pass_exactly(logits):
    parity = judge(logits, logits.copy(), precision="float32")
    assert parity.passed
    assert (parity.max_abs_difference, parity.relative_rms, parity.agreement, parity.ties) == (0.0, 0.0, 1.0, 0)
    assert "100.00% of 300 validation images" in parity.reason


def test_float_logits_may_differ_by_a_ten_thousandth_of_the_largest(logits):
    scale = np.abs(logits).max()
    for share, passed in ((0.9e-4, True), (1.1e-4, False)):
        found = logits.copy()
        found[7, 3] += np.float32(share) * scale
        assert judge(logits, found, precision="float32").passed is passed
    assert "more than 0.0001 of the largest" in judge(logits, found, precision="float32").reason


def test_another_class_is_forgiven_only_where_the_network_hardly_knew(logits):
    logits[:, 0] = 1e4  # so that a difference of 0.5 is small
    found = logits.copy()
    found[1, 5] += 0.5
    for gap, passed in ((0.25, True), (0.75, False)):
        logits[0, :2] = [1e4, 1e4 - gap]
        found[0, :2] = [1e4 - 0.4375, 1e4 - gap + 0.4375]
        parity = judge(logits, found, precision="float32")
        assert (parity.passed, parity.max_abs_difference, parity.agreement) == (passed, 0.5, 299 / 300)
        assert parity.ties == passed
    assert parity.reason == "1 images get another class though their logits are no tie"


def test_int8_file_must_name_the_same_class_on_97_of_100_images(logits):
    for wrong, passed in ((9, True), (10, False)):
        found = logits.copy()
        found[:wrong] = -found[:wrong]
        assert judge(logits, found, precision="int8").passed is passed
    assert "96.7% of images, 97% are needed" in judge(logits, found, precision="int8").reason


def test_relative_error_ignores_what_is_added_to_all_logits_of_an_image(logits):
    found = logits + np.linspace(-3, 3, 300, dtype=np.float32)[:, None]
    assert judge(logits, found, precision="int8").relative_rms < 1e-6
    doubled = judge(logits, 2 * logits, precision="int8")
    assert doubled.relative_rms == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_dead_output_fails(logits, precision):
    constant = np.repeat(logits[:1], 300, axis=0)
    assert "its output is dead" in judge(constant, constant, precision=precision).reason
    assert not judge(constant, constant, precision=precision).passed
    assert not judge(logits, np.zeros_like(logits), precision=precision).passed


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_logits_that_are_no_numbers_fail(logits, value):
    broken = logits.copy()
    broken[5:8, 2] = value
    parity = judge(logits, broken, precision="int8")
    assert not parity.passed
    assert parity.reason == "the file gives logits that are not finite for 3 of 300 images"
    assert "the network gives" in judge(broken, logits, precision="float32").reason


def test_other_number_of_classes_fails(logits):
    assert judge(logits, logits[:, :9], precision="float32").reason == (
        "the file gives logits of shape (300, 9), the network (300, 10)"
    )


def test_few_images_are_mentioned(logits):
    assert "only 20 images to compare, 256 are asked for" in judge(logits[:20], logits[:20], precision="int8").reason


def changed(folder, source, change):
    """Return a copy of a file after `change` of one of its weights."""
    path = folder / "changed.onnx"
    model = onnx.load(source)
    tensor = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    onnx.save(model, path)
    return path


def one_weight_half(weight):
    weight.flat[np.abs(weight).argmax()] *= 0.5
    return weight


def all_nan(weight):
    return np.full_like(weight, np.nan)


@pytest.mark.parametrize(
    ("change", "reason"), [(one_weight_half, "more than 0.0001"), (all_nan, "not finite")], ids=["perturbed", "nan"]
)
def test_file_with_changed_weights_is_refused(mobile, task, tmp_path, change, reason):
    path = changed(tmp_path, mobile.exported.files[0].path, change)
    network = mobile.candidate.module
    parity = compare(path, network, task.validation, task.preprocessing, precision="float32", images=64)
    assert not parity.passed
    assert reason in parity.reason


def test_failed_parity_is_raised_only_when_asked(mobile, logits, tmp_path):
    file = mobile.exported.files[0]
    broken = judge(logits, np.full_like(logits, np.nan), precision="float32")
    files = (replace(file, parity=broken),)
    exported = Exported(folder=tmp_path, files=files, manifest={})
    with pytest.raises(ParityFailed, match=r"model.onnx: the file gives logits that are not finite for 300 of 300"):
        require_parity(exported)
    write_parities(tmp_path, files)
    assert read_parities(tmp_path) == {"model.onnx": broken}
