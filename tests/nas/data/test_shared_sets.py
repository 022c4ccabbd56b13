"""The real sets of ../shared/data/vision, as far as they are there."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import DataOptions, load_task
from nas.data.image_folder import ImageFolder
from nas.data.npz import Npz
from search_spaces.errors import DataError

VISION = Path(__file__).parents[4] / "shared" / "data" / "vision"


@pytest.fixture
def shared():
    def find(name: str) -> Path:
        path = VISION / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{path} is not there")
        return path

    return find


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_fashion_mnist_keeps_its_pixels(shared, tmp_path):
    path = shared("fashion_mnist")
    options = DataOptions(height=28, width=28, color="grey", limit=200)
    task = load_task(Npz(path=str(path)), options, cache_dir=tmp_path, workers=1)
    assert np.bincount(task.train.labels).tolist() == [20] * 10
    assert task.classes[9] == "Ankle boot"
    with np.load(path) as archive:
        known = {image.tobytes(): label for image, label in zip(archive["x_train"], archive["y_train"], strict=True)}
    assert [known[image.tobytes()] for image in task.train.images] == task.train.labels.tolist()
    assert len(task.open_test()) == 200


@pytest.mark.parametrize(
    ("name", "side", "classes"),
    [("cifar10_jpeg", 32, 10), ("clothing96_jpeg", 96, 10), ("trashnet96_jpeg", 96, 6)],
    ids=["cifar10", "clothing", "trashnet"],
)
def test_jpeg_sets_keep_their_pixels(shared, tmp_path, name, side, classes):
    path = shared(name)
    options = DataOptions(height=side, width=side, limit=120)
    task = load_task(Npz(path=str(path)), options, cache_dir=tmp_path, workers=1)
    assert len(task.classes) == classes
    assert len(task.train) == len(task.validation) == 120
    source = Npz(path=str(path)).read()
    known = {
        decoded(source.test.images[number]).tobytes(): source.test.labels[number]
        for number in range(len(source.test.labels))
    }
    test = task.open_test()
    assert [known[image.tobytes()] for image in test.images] == test.labels.tolist()


def test_photos_in_folders_are_read_like_photos_in_an_archive(shared, tmp_path):
    source = Npz(path=str(shared("trashnet96_jpeg"))).read()
    for number in range(0, 1600, 8):
        folder = tmp_path / "trash" / source.classes[source.train.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(source.train.images[number])
    options = DataOptions(height=48, width=48, metric="balanced_accuracy", resize="letterbox")
    task = load_task(ImageFolder(path=str(tmp_path / "trash")), options, cache_dir=tmp_path / "cache", workers=2)
    test = task.open_test()
    assert len(task.train) + len(task.validation) + len(test) == 200
    assert task.train.images.shape[1:] == (48, 48, 3)
    # A photo of rubbish on a white board: neither black nor one color.
    assert 100 < task.train.images.mean() < 220
    assert task.train.images.std() > 30
    larger = task.at_size(96, 96)
    known = {
        decoded(source.train.images[number]).tobytes(): source.train.labels[number] for number in range(0, 1600, 8)
    }
    assert [known[image.tobytes()] for image in larger.train.images] == task.train.labels.tolist()


def test_a_detection_set_is_refused(shared):
    with pytest.raises(DataError, match=r"has no labels y_train; it holds boxes_test, boxes_train"):
        Npz(path=str(shared("bccd320_detection"))).read()
