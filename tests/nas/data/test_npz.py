import io

import numpy as np
import pytest
from PIL import Image

from nas.data.npz import Npz
from search_spaces.errors import DataError


@pytest.fixture
def arrays(rng) -> dict[str, np.ndarray]:
    return {
        "x_train": rng.integers(0, 256, (6, 4, 5), np.uint8),
        "y_train": np.array([0, 1, 0, 1, 0, 1], np.uint8),
        "x_test": rng.integers(0, 256, (2, 4, 5), np.uint8),
        "y_test": np.array([0, 1], np.uint8),
        "classes": np.array(["cat", "dog"]),
    }


@pytest.fixture
def save(tmp_path):
    def write(arrays: dict[str, np.ndarray]) -> Npz:
        path = tmp_path / "pets.npz"
        np.savez_compressed(path, **arrays)
        return Npz(path=str(path))

    return write


def test_raw_arrays_are_read(save, arrays):
    source = save(arrays).read()
    assert (source.name, source.classes) == ("pets", ("cat", "dog"))
    assert source.validation is None
    assert source.train.labels.dtype == np.int64
    assert np.array_equal(source.train.images[3], arrays["x_train"][3])
    assert np.array_equal(source.test.images[1], arrays["x_test"][1])
    assert source.train.names[3] == "train[3]"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_last(save, arrays, rng, channels):
    arrays["x_train"] = rng.integers(0, 256, (6, 4, 5, channels), np.uint8)
    assert save(arrays).read().train.images[0].shape == (4, 5, channels)


def test_encoded_images_are_cut_from_the_blob(save, arrays, rng):
    files = []
    for _ in range(6):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (4, 5), np.uint8)).save(stream, "PNG")
        files.append(stream.getvalue())
    del arrays["x_train"]
    arrays["x_train_blob"] = np.frombuffer(b"".join(files), np.uint8)
    arrays["x_train_offset"] = np.cumsum([0, *map(len, files)])
    arrays["name_train"] = np.array([f"{number}.png" for number in range(6)])
    arrays["group_train"] = np.array(list("aabbcc"))
    train = save(arrays).read().train
    assert [train.images[number] for number in range(6)] == files
    assert train.names[4] == "train[4] 4.png"
    assert list(train.groups) == list("aabbcc")


def test_classes_are_numbers_where_none_are_named(save, arrays):
    del arrays["classes"]
    arrays["y_train"] = arrays["y_train"][:, None] * 2
    arrays["y_train"][1] = 1
    assert save(arrays).read().classes == ("0", "1", "2")


def test_the_fingerprint_follows_the_content(save, arrays):
    first = save(arrays).read().fingerprint
    assert save(arrays).read().fingerprint == first
    arrays["x_test"][1, 0, 0] ^= 1
    assert save(arrays).read().fingerprint != first


def pixels_of(source):
    return source.train.images[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": None}, r"has no labels y_train; it holds classes, x_test"),
        ({"x_train": None}, "has y_train but neither x_train nor x_train_blob with x_train_offset"),
        ({"y_train": np.zeros(6)}, "y_train must be integers in a row, got float64"),
        ({"y_train": np.array([0, 1, 0, 1, 0, 9])}, r"lie outside the 2 classes, the first at train\[5\]: 9"),
        ({"y_train": np.array([0, 1, 0])}, "x_train describes 6 images, but y_train has 3 labels"),
        ({"x_train": np.zeros((6, 4, 5), np.float32)}, "must be uint8.*got float32"),
        ({"x_train": np.zeros((6, 3, 4, 5), np.uint8)}, "move the channels to the end"),
        ({"x_train": np.zeros((6, 4, 5, 2), np.uint8)}, "1, 3 or 4 channels last, got the shape"),
        ({"name_train": np.array(["a"])}, "name_train must be 6 strings"),
        ({"classes": np.array(["cat", "cat"])}, "class names must differ"),
        ({"y_val": np.array([0]), "y_validation": np.array([0])}, "has y_val"),
        ({"x_train": np.array([None] * 6)}, "cannot be unpacked: Object arrays cannot be loaded"),
    ],
    ids=[
        "no-labels", "no-images", "float-labels", "label-outside", "fewer-labels", "float-images",
        "channels-first", "two-channels", "names", "duplicate-class", "two-validations", "pickled",
    ],
)  # fmt: skip
def test_another_layout_is_named(save, arrays, change, message):
    changed = {name: value for name, value in (arrays | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        pixels_of(save(changed).read())


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 1, 3, 4, 5, 6], "must rise"),
        ([0, 1, 2, 3, 4, 5, 99], "must rise from 0 to at most 10"),
        ([-1, 1, 2, 3, 4, 5, 6], "must rise"),
        ([0, 1, 2], "x_train_offset describes 2 images, but y_train has 6 labels"),
    ],
    ids=["falling", "beyond", "negative", "few"],
)
def test_offsets_that_do_not_fit_are_named(save, arrays, offsets, message):
    del arrays["x_train"]
    arrays["x_train_blob"] = np.zeros(10, np.uint8)
    arrays["x_train_offset"] = np.array(offsets)
    with pytest.raises(DataError, match=message):
        pixels_of(save(arrays).read())


def test_missing_and_damaged_files_are_named(tmp_path, save, arrays):
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        Npz(path=str(tmp_path / "gone.npz")).read()
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    with pytest.raises(DataError, match=r"text\.npz cannot be read as \.npz"):
        Npz(path=str(text)).read()
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    with pytest.raises(DataError, match="holds one array"):
        Npz(path=str(single)).read()
    source = save(arrays)
    whole = (tmp_path / "pets.npz").read_bytes()
    (tmp_path / "pets.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as"):
        source.read()
