import numpy as np
import pytest

from nas.task import Preprocessing, Split, Task


@pytest.fixture
def task() -> Task:
    split = Split("train", np.zeros((4, 8, 8, 1), np.uint8), np.arange(4))
    return Task(
        name="tiny",
        classes=("a", "b", "c", "d"),
        preprocessing=Preprocessing(height=8, width=8, color="grey"),
        train=split,
        validation=split,
        calibration=split,
        open_test=lambda: split,
    )


def quantized(inputs: np.ndarray) -> np.ndarray:
    """Quantize as onnxruntime does after min-max calibration: uint8, rounding half to even."""
    scale = np.float32((inputs.max() - inputs.min()) / 255)
    zero_point = np.rint(-inputs.min() / scale)
    return np.clip(np.rint(inputs / scale) + zero_point, 0, 255)


def test_the_fixed_normalization_survives_8_bits_level_for_level():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    fixed = Preprocessing(height=16, width=16, color="grey")
    halves = Preprocessing(height=16, width=16, color="grey", mean=(127.5,), std=(127.5,))
    assert np.array_equal(quantized(fixed.normalize(levels)).ravel(), np.arange(256))
    assert len(np.unique(quantized(halves.normalize(levels)))) < 200


def test_normalization_is_by_channel_and_moves_channels_first():
    preprocessing = Preprocessing(height=1, width=2, mean=(0, 10, 20), std=(1, 2, 4))
    inputs = preprocessing.normalize(np.array([[[[0, 10, 20], [1, 12, 28]]]], np.uint8))
    assert inputs.dtype == np.float32
    assert inputs[0, :, 0].tolist() == [[0, 1], [0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (1.0,)}, "rgb needs 3 means"),
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
        ({"height": 0}, "at least one pixel"),
        ({"fill": 256}, "grey level"),
        ({"bits": 7}, "8 to 16"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_preprocessing_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"height": 8, "width": 8} | options)


def test_a_task_of_arrays_has_one_size(task):
    assert task.at_size(8, 8) is task
    with pytest.raises(ValueError, match="make it with load_task"):
        task.at_size(16, 16)


def test_another_size_comes_from_the_originals(task):
    other = task.replace(resized=lambda height, width: task.replace(name=f"{height}x{width}"))
    assert other.at_size(16, 24).name == "16x24"


def test_a_split_needs_as_many_labels_as_images():
    with pytest.raises(ValueError, match="n labels"):
        Split("train", np.zeros((4, 8, 8, 1), np.uint8), np.arange(3))
