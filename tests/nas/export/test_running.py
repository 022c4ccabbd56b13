import numpy as np
import onnx
import pytest

from nas.export.running import run_file
from search_spaces.errors import MeasurementError, RunError


@pytest.fixture
def path(mobile):
    return mobile.exported.files[0].path


def test_one_image_or_many_give_the_same_logits(path, images):
    together = run_file(path, images)
    assert together.shape == (7, 10)
    assert together.dtype == np.float32
    assert np.array_equal(together[3:4], run_file(path, images[3:4]))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 24, 16, 3), np.uint8), np.zeros((2, 16, 24, 3), np.float32), np.zeros((0, 16, 24, 3), np.uint8)],
    ids=["other shape", "other type", "none"],
)
def test_wrong_images_are_refused(path, wrong):
    with pytest.raises(ValueError, match="takes uint8 images of \\(16, 24, 3\\)"):
        run_file(path, wrong)


def test_file_of_somebody_else_is_refused(path, images, tmp_path):
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(RunError, match=r"theirs.onnx holds no metadata of format 1"):
        run_file(tmp_path / "theirs.onnx", images)


def test_damaged_file_is_refused(path, images, tmp_path):
    (tmp_path / "half.onnx").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MeasurementError, match=r"onnxruntime refuses half.onnx"):
        run_file(tmp_path / "half.onnx", images)
