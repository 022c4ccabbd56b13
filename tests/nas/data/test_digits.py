import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from nas.data import TASKS, DataOptions, load_task
from nas.data.digits import Digits


def test_digits_use_the_whole_range_of_grey():
    source = Digits().read()
    assert source.train.images[0].dtype == np.uint8
    raw = load_digits().images
    for number in (0, 700, 1796):
        assert np.abs(source.train.images[number] - raw[number] * 255 / 16).max() <= 0.5
    assert source.classes == tuple("0123456789")


def test_digits_become_a_task_of_1797_images(tmp_path):
    options = DataOptions(height=32, width=32, color="grey")
    task = load_task(TASKS.get("digits")(), options, cache_dir=tmp_path, workers=1)
    test = task.open_test()
    assert [len(task.train), len(task.validation), len(test)] == [1259, 269, 269]
    assert task.train.images.shape == (1259, 32, 32, 1)
    # Parity of an exported file is checked on at least 256 validation images.
    assert len(task.validation) >= 256
    share = np.bincount(task.train.labels) / np.bincount(load_digits().target)
    assert np.abs(share - 0.7).max() < 0.01
    originals = {
        np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)).tobytes(): label
        for image, label in zip(Digits().read().train.images, load_digits().target, strict=True)
    }
    assert [originals[image.tobytes()] for image in test.images] == test.labels.tolist()
