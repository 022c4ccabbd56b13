from collections.abc import Sequence

import numpy as np
import pytest

from nas.data.pixels import keep_rows, read_pixels, write_pixels
from nas.task import Preprocessing

SMALL = Preprocessing(height=4, width=4, color="grey")


def silent(label: str, share: float) -> None:
    pass


@pytest.fixture
def raw(rng):
    return [rng.integers(0, 256, (6, 9), np.uint8) for _ in range(300)]


def written(path) -> np.ndarray:
    return np.load(path)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_pixels_do_not_depend_on_the_number_of_threads(tmp_path, raw, workers):
    path = tmp_path / "x.npy"
    assert write_pixels(path, raw, SMALL, workers=workers, report=silent) == {}
    assert np.array_equal(written(path), np.stack([read_pixels(image, SMALL) for image in raw]))


def test_unreadable_images_are_numbered_and_zero(tmp_path, raw):
    raw[5], raw[280] = b"", b"text"
    failures = write_pixels(tmp_path / "x.npy", raw, SMALL, workers=2, report=silent)
    assert failures == {5: "the file is empty", 280: "no image of a known format"}
    assert not written(tmp_path / "x.npy")[[5, 280]].any()
    assert written(tmp_path / "x.npy")[[4, 281]].any()


class Watched(Sequence):
    """Images that are counted when they are looked at, and that end the run at one of them."""

    def __init__(self, images, stop=None):
        self.images, self.stop, self.seen = images, stop, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.stop:
            raise KeyboardInterrupt
        self.seen.append(index)
        return self.images[index]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_run_goes_on_where_it_was(tmp_path, raw, workers):
    path = tmp_path / "x.npy"
    with pytest.raises(KeyboardInterrupt):
        write_pixels(path, Watched(raw, stop=299), SMALL, workers=workers, report=silent)
    rest = Watched(raw)
    write_pixels(path, rest, SMALL, workers=workers, report=silent)
    assert min(rest.seen) >= 64
    assert max(rest.seen) == 299
    assert np.array_equal(written(path), np.stack([read_pixels(image, SMALL) for image in raw]))


@pytest.mark.parametrize("damage", ["cut", "other-shape", "no-marks"])
def test_what_is_not_ours_is_begun_anew(tmp_path, raw, damage):
    path = tmp_path / "x.npy"
    write_pixels(path, raw, SMALL, workers=1, report=silent)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "other-shape":
        np.save(path, np.zeros((3, 4, 4, 1), np.uint8))
    else:
        path.with_name("x.npy.done").unlink()
    again = Watched(raw)
    write_pixels(path, again, SMALL, workers=1, report=silent)
    assert len(again.seen) == len(raw)
    assert np.array_equal(written(path), np.stack([read_pixels(image, SMALL) for image in raw]))


def test_progress_rises_to_one(tmp_path, raw):
    shares: list[float] = []
    write_pixels(tmp_path / "x.npy", raw, SMALL, workers=2, report=lambda _label, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("rows", [np.arange(300), np.arange(0, 300, 3)], ids=["all", "some"])
def test_rows_are_kept_and_the_whole_file_goes(tmp_path, raw, rows):
    whole = tmp_path / "x.all.npy"
    write_pixels(whole, raw, SMALL, workers=1, report=silent)
    pixels = written(whole)
    keep_rows(tmp_path / "x.npy", whole, rows)
    assert np.array_equal(written(tmp_path / "x.npy"), pixels[rows])
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
