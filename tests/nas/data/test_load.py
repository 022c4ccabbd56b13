import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import DataOptions, Part, Source, load_task
from nas.data.image_folder import ImageFolder
from search_spaces.errors import DataError, RunError

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True)
class Given:
    """A source that hands over what it was given."""

    source: Source

    def read(self) -> Source:
        return self.source


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def bmp(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


@pytest.fixture
def pixels(rng):
    """Make images of 6 x 6 random grey pixels."""

    def make(count: int) -> list[np.ndarray]:
        return list(rng.integers(0, 256, (count, 6, 6), np.uint8))

    return make


def part(images, labels, prefix="", **options) -> Part:
    names = [f"{prefix}{number}" for number in range(len(images))]
    return Part(images=images, labels=np.array(labels, np.int64), names=names, **options)


def given(train: Part, **parts) -> Given:
    return Given(source=Source(name="marks", classes=("a", "b"), train=train, **parts))


def options(**changes) -> DataOptions:
    return DataOptions(**{"height": 6, "width": 6, "color": "grey"} | changes)


@pytest.fixture
def load(tmp_path):
    def call(source, wanted=None, **arguments):
        return load_task(source, wanted or options(), cache_dir=tmp_path / "cache", workers=1, **arguments)

    return call


def where(images, found) -> list[int]:
    """Return the number of each found image among the images."""
    return [next(number for number, image in enumerate(images) if np.array_equal(image, one[:, :, 0])) for one in found]


def test_a_task_has_every_image_once_with_its_label(load, pixels):
    images = pixels(60)
    labels = np.arange(60) % 2
    task = load(given(part(images, labels)))
    test = task.open_test()
    numbers = []
    for split in (task.train, task.validation, test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        found = where(images, split.images)
        assert labels[found].tolist() == split.labels.tolist()
        numbers += found
    assert sorted(numbers) == list(range(60))
    # 15 % of 30 images a class is 4.5, and a half is rounded down.
    assert [len(task.train), len(task.validation), len(test)] == [44, 8, 8]
    assert task.name == "marks"
    assert task.classes == ("a", "b")
    assert "The source has no validation split: 8 of its 60 training images" in task.notes[0]


def test_splits_of_the_source_are_kept_and_shuffled(load, pixels):
    images = pixels(60)
    source = given(
        part(images[:40], [0] * 20 + [1] * 20),
        validation=part(images[40:50], [0, 1] * 5, "v"),
        test=part(images[50:], [0, 1] * 5, "t"),
    )
    task = load(source)
    found = where(images, task.train.images)
    assert sorted(found) == list(range(40))
    assert found != list(range(40))
    assert 5 <= task.train.labels[:20].sum() <= 15
    assert sorted(where(images, task.validation.images)) == list(range(40, 50))
    assert sorted(where(images, task.open_test().images)) == list(range(50, 60))
    assert task.notes == ()


def test_the_seed_decides_the_splits(load, pixels):
    source = given(part(pixels(60), np.arange(60) % 2))
    first, other = load(source), load(source, options(split_seed=1))
    assert not np.array_equal(first.validation.images, other.validation.images)
    assert first.data_hash != other.data_hash


def test_options_reach_the_task(load, pixels):
    wanted = options(metric="macro_f1", balance="sampler", augment=("shift",), calibration_images=10, color="bgr")
    task = load(given(part(pixels(60), np.arange(60) % 2)), wanted)
    assert (task.metric, task.balance, task.augment) == ("macro_f1", "sampler", ("shift",))
    assert task.preprocessing == wanted.preprocessing()
    assert task.train.images.shape == (44, 6, 6, 3)
    assert np.bincount(task.calibration.labels).tolist() == [5, 5]
    train = {image.tobytes() for image in task.train.images}
    assert all(image.tobytes() in train for image in task.calibration.images)


def test_normalization_is_fixed_or_that_of_the_training_pixels(load, pixels):
    source = given(part(pixels(60), np.arange(60) % 2))
    assert load(source).preprocessing.mean == (128.0,)
    task = load(source, options(normalize="train"))
    assert task.preprocessing.mean == pytest.approx((task.train.images.mean(),))
    assert task.preprocessing.std == pytest.approx((task.train.images.std(),))
    assert task.preprocessing.normalize(task.train.images).std() == pytest.approx(1, abs=1e-4)


def test_limit_keeps_the_classes_shares(load, pixels):
    task = load(given(part(pixels(200), [0] * 150 + [1] * 50)), options(limit=20))
    assert np.bincount(task.train.labels).tolist() == [15, 5]
    assert np.bincount(task.validation.labels).tolist() == [15, 5]
    assert len(task.open_test()) == 20
    with pytest.raises(DataError, match=r"limit = 1 leaves some of the 2 classes without an image"):
        load(given(part(pixels(200), [0] * 150 + [1] * 50)), options(limit=1))


def test_a_class_with_one_image_is_named(load, pixels):
    with pytest.raises(DataError, match="marks: class 'b' has 1 image, but at least 3 are needed"):
        load(given(part(pixels(30), [0] * 29 + [1])))
    with pytest.raises(DataError, match="marks: class 'b' has 1 image, but at least 2 are needed"):
        load(
            given(
                part(pixels(30), [0] * 29 + [1]),
                validation=part(pixels(2), [0, 1], "v"),
                test=part(pixels(2), [0, 1], "t"),
            )
        )


def test_a_class_without_validation_images_is_noted(load, pixels):
    source = given(
        part(pixels(30), np.arange(30) % 2),
        validation=part(pixels(5), [0] * 5, "v"),
        test=part(pixels(5), [1] * 5, "t"),
    )
    assert load(source).notes == (
        "Classes without an image in the validation split: 1 ('b').",
        "Classes without an image in the test split: 1 ('a').",
    )


def test_images_of_a_group_stay_on_one_side(load, pixels):
    images = pixels(200)
    groups = [f"scene{number // 5}" for number in range(200)]
    labels = [number // 5 % 2 for number in range(200)]
    task = load(given(part(images, labels, groups=groups)))
    sides = [
        {groups[number] for number in where(images, split.images)}
        for split in (task.train, task.validation, task.open_test())
    ]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert all(sides)


def test_groups_are_found_in_names(load, folder):
    source = ImageFolder(path=str(folder({"a": 50, "b": 50})))
    task = load(source, options(group_pattern=r"/(\d\d)\d"))
    assert task.notes[0] == r"Groups of images found by '/(\\d\\d)\\d': 5."
    # A group has ten images of each class, so that nothing between 10 and 20 is possible.
    strays = "the validation split strays from its share: a 10 (wanted 8), b 10 (wanted 8)."
    assert f"Groups stay together, so {strays}" in task.notes
    assert len(task.validation) == len(task.open_test()) == 20


def test_a_pattern_that_fits_some_or_no_names_is_told(load, folder):
    source = ImageFolder(path=str(folder({"a": 20, "b": 20})))
    task = load(source, options(group_pattern="b/01"))
    assert "Images of no group, since the pattern does not fit: 30 (a/000.png, " in " ".join(task.notes)
    with pytest.raises(DataError, match=r"group_pattern 'scene' fits no image's name, such as a/000\.png"):
        load(source, options(group_pattern="scene"))


def test_groups_that_the_source_has_torn_are_noted(load, pixels):
    source = given(
        part(pixels(30), np.arange(30) % 2, groups=["x"] * 3 + ["y"] * 27),
        test=part(pixels(4), [0, 1, 0, 1], "t", groups=["x", "z", "z", "z"]),
    )
    with pytest.raises(DataError, match="in 2 groups that stay together"):
        load(source)
    source = given(
        part(pixels(30), np.arange(30) % 2, groups=["x"] * 3 + [""] * 27),
        test=part(pixels(4), [0, 1, 0, 1], "t", groups=["x", "z", "z", "z"]),
    )
    assert load(source).notes[0] == "Groups with images in more than one split of the source: 1 (x)."


def test_files_with_the_same_bytes_stay_on_one_side(load, pixels):
    images = pixels(30)
    task = load(given(part([*images, *images, *images], np.arange(90) % 2)), options(split_seed=3))
    sides = [set(where(images, split.images)) for split in (task.train, task.validation, task.open_test())]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def with_duplicates(pixels):
    """Make a source with images in several splits: byte for byte, and the same pixels in another format."""
    images = pixels(40)
    train = [png(image) for image in images[:30]]
    validation = [png(images[3]), bmp(images[4]), *map(png, images[30:34])]
    test = [png(images[5]), bmp(images[6]), bmp(images[31]), *map(png, images[34:38])]
    source = given(
        part(train, np.arange(30) % 2, "train"),
        validation=part(validation, [1, 0, 0, 1, 0, 1], "val"),
        test=part(test, [1, 0, 1, 0, 1, 0, 1], "test"),
    )
    return images, source


def test_identical_images_are_counted_and_named(load, pixels):
    _, source = with_duplicates(pixels)
    task = load(source)
    first, second = task.notes
    assert first.startswith("Images of the train split identical to one of the validation split: 2 (")
    assert "train3 = val0" in first
    assert "train4 = val1" in first
    # Of the test images only the stored bytes are compared before the report opens them.
    assert second == "Images of the train split identical to one of the test split: 1 (train5 = test0)."
    notes = task.open_test().notes
    assert notes[0].startswith("Images of the test split identical to one of the train split: 2 (")
    assert "test1 = train6" in notes[0]
    assert notes[1] == "Images of the test split identical to one of the validation split: 1 (test2 = val3)."


def test_identical_images_may_be_dropped_where_they_are_learned_or_selected_by(load, pixels):
    images, source = with_duplicates(pixels)
    task = load(source, options(duplicates="drop"))
    assert sorted(where(images, task.train.images)) == sorted(set(range(30)) - {3, 4, 5, 6})
    assert sorted(where(images, task.validation.images)) == [3, 4, 30, 32, 33]
    assert sorted(where(images, task.open_test().images)) == [5, 6, 31, 34, 35, 36, 37]
    assert [note.count("were taken out") for note in task.notes] == [1, 1, 1]
    assert task.open_test().notes == ()


def test_identical_images_may_be_refused(load, pixels):
    _, source = with_duplicates(pixels)
    with pytest.raises(
        DataError, match=r"Images of the train split identical .*: 2 .*Remove them, or set duplicates to 'drop'"
    ):
        load(source, options(duplicates="error"))


def test_an_image_under_two_classes_is_noted(load, pixels):
    images = pixels(40)
    images[1] = images[0]
    source = given(
        part(images, np.arange(40) % 2),
        validation=part(pixels(2), [0, 1], "v"),
        test=part(pixels(2), [0, 1], "t"),
    )
    note = load(source).notes[0]
    assert note.startswith("Images identical to one of another class: 1 (")
    assert "0 (a)" in note
    assert "1 (b)" in note


def broken(pixels, count: int) -> Given:
    images = [png(image) for image in pixels(100)]
    for number in range(count):
        images[number] = images[number][: 40 + number] if number else b""
    return given(
        part(images, np.arange(100) % 2),
        validation=part(pixels(2), [0, 1], "v"),
        test=part([*map(png, pixels(3)), b"x"], [0, 1, 0, 1], "t"),
    )


def test_unreadable_images_are_left_out_and_named(load, pixels):
    task = load(broken(pixels, 2), options(max_corrupt=0.5))
    assert len(task.train) == 98
    assert task.notes[0].startswith("Unreadable images: 2 of 102 (")
    assert "0 (the file is empty)" in task.notes[0]
    test = task.open_test()
    assert len(test) == 3
    assert test.notes == ("Unreadable test images: 1 of 4 (t3 (no image of a known format)).",)


def test_too_many_unreadable_images_are_refused_from_the_cache_too(load, pixels):
    source = broken(pixels, 7)
    refusal = r"7 of 102 images cannot be read, more than max_corrupt = 0.05 allows: .* and 2 more\. Mend"
    for _ in range(2):
        with pytest.raises(DataError, match=refusal):
            load(source, options(max_corrupt=0.05))
    task = load(source, options(max_corrupt=0.07))
    with pytest.raises(DataError, match="1 of 4 images cannot be read, more than max_corrupt"):
        task.open_test()
    with pytest.raises(DataError, match=refusal):
        load(source, options(max_corrupt=0.05))


def test_a_class_with_no_readable_image_is_named(load, pixels):
    images = [png(image) for image in pixels(30)]
    images[1::2] = [b""] * 15
    source = given(
        part(images, np.arange(30) % 2),
        validation=part(pixels(2), [0, 1], "v"),
        test=part(pixels(2), [0, 1], "t"),
    )
    with pytest.raises(DataError, match="no training image of 'b' is left"):
        load(source, options(max_corrupt=0.9))


def cached(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith("."))


def test_images_are_decoded_once_and_mapped_later(load, folder, tmp_path):
    root = folder({"a": 20, "b": 20})
    source = ImageFolder(path=str(root))
    first = load(source)
    told: list[str] = []
    again = load(source, progress=lambda label, _share: told.append(label))
    assert told == []
    assert isinstance(again.train.images, np.memmap)
    assert np.array_equal(first.train.images, again.train.images)
    assert (first.data_hash, first.notes) == (again.data_hash, again.notes)
    assert len(cached(tmp_path)) == 1


def test_a_changed_file_or_option_is_decoded_again(load, folder, noise, tmp_path):
    root = folder({"a": 20, "b": 20})
    source = ImageFolder(path=str(root))
    hashes = [load(source).data_hash]
    noise(50, 50).save(root / "a" / "000.png")
    hashes += [load(source).data_hash, load(source, options(resize="crop")).data_hash]
    (root / "a" / "000.png").rename(root / "b" / "moved.png")
    hashes.append(load(source).data_hash)
    assert len(set(hashes)) == 4
    assert len(cached(tmp_path)) == 4


def test_what_changes_no_pixel_shares_the_cache(load, pixels, tmp_path):
    source = given(part(pixels(60), np.arange(60) % 2))
    first = load(source)
    other = load(source, options(metric="macro_f1", balance="sampler", augment=("x",), max_corrupt=0.5))
    assert len(cached(tmp_path)) == 1
    assert first.data_hash == other.data_hash
    assert load(source, options(normalize="train")).data_hash != first.data_hash


def test_the_hash_follows_pixels_labels_and_classes_but_not_the_place(load, pixels, tmp_path):
    images, labels = pixels(60), np.arange(60) % 2
    source = given(part(images, labels)).source
    first = load(Given(source=source)).data_hash
    elsewhere = load_task(Given(source=source), options(), cache_dir=tmp_path / "other").data_hash
    assert first == elsewhere
    changed = [images[0] ^ 1, *images[1:]]
    others = [
        Source(name="marks", classes=("a", "c"), train=source.train),
        Source(name="marks", classes=("a", "b"), train=part(changed, labels)),
        Source(name="marks", classes=("a", "b"), train=part(images, 1 - labels)),
    ]
    assert len({first, *(load(Given(source=other)).data_hash for other in others)}) == 4


def test_a_changed_test_image_changes_the_hash(load, pixels):
    train, test = pixels(40), pixels(10)

    def source():
        return given(part(train, np.arange(40) % 2), test=part(list(map(png, test)), np.arange(10) % 2, "t"))

    first = load(source()).data_hash
    test[3] = test[3] ^ 1
    assert load(source()).data_hash != first


def test_a_damaged_cache_is_made_again(load, pixels, tmp_path):
    source = given(part(pixels(60), np.arange(60) % 2))
    first = load(source)
    file = next((tmp_path / "cache").glob("*/train.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 255
    file.unlink()
    file.write_bytes(data)
    told: list[str] = []
    again = load(source, progress=lambda label, _share: told.append(label))
    assert "damaged and made again" in told[0]
    assert np.array_equal(first.train.images, again.train.images)


def test_the_test_split_is_not_decoded_before_it_is_opened(load, pixels, tmp_path):
    source = given(part(pixels(40), np.arange(40) % 2), test=part([b"never decoded"] * 4, [0, 1, 0, 1], "t"))
    task = load(source)
    assert not list((tmp_path / "cache").glob("*-test*"))
    with pytest.raises(DataError, match="4 of 4 images cannot be read"):
        task.open_test()


def test_another_size_has_the_same_images_from_the_originals(load, folder, tmp_path):
    root = folder({"a": 20, "b": 20})
    (root / "a" / "000.png").write_bytes(b"broken")
    source = ImageFolder(path=str(root))
    small = load(source, options(max_corrupt=0.5, normalize="train"))
    large = small.at_size(12, 16)
    assert large.at_size(12, 16) is large
    assert large.preprocessing.input_shape == (1, 12, 16)
    assert large.preprocessing.mean == small.preprocessing.mean
    assert large.data_hash != small.data_hash
    originals = {
        np.asarray(Image.open(path).convert("L")).tobytes(): label
        for label, name in enumerate("ab")
        for path in (root / name).glob("*.png")
        if path.stat().st_size > 10
    }
    for split, same in ((large.train, small.train), (large.validation, small.validation)):
        assert [originals[image.tobytes()] for image in split.images] == split.labels.tolist() == same.labels.tolist()
    # What is small is what scaling the original gives: no image has moved.
    for image, wanted in zip(large.train.images, small.train.images, strict=True):
        scaled = Image.fromarray(image[:, :, 0]).resize((6, 6), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(scaled), wanted[:, :, 0])
    assert np.array_equal(large.open_test().labels, small.open_test().labels)
    assert large.open_test().images.shape[1:] == (12, 16, 1)
    assert len(cached(tmp_path)) == 4
    back = large.at_size(6, 6)
    assert np.array_equal(back.train.images, small.train.images)
    assert back.data_hash == small.data_hash


def test_an_image_that_vanishes_between_two_sizes_is_named(load, folder):
    root = folder({"a": 20, "b": 20})
    task = load(ImageFolder(path=str(root)))
    for file in (root / "a").iterdir():
        status = file.stat()
        file.write_bytes(b"\0" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"could be read before and cannot now: a/\d+\.png \(no image"):
        task.at_size(8, 8)


def test_a_task_of_a_plug_in_of_fields_travels_between_processes(load, folder):
    task = load(ImageFolder(path=str(folder({"a": 20, "b": 20}))))
    copy = pickle.loads(pickle.dumps(task))
    assert np.array_equal(copy.open_test().images, task.open_test().images)
    assert np.array_equal(copy.at_size(8, 8).train.images, task.at_size(8, 8).train.images)


def test_damaged_exif_warns_nobody(load, folder, noise):
    root = folder({"a": 10, "b": 10})
    noise().save(root / "a" / "000.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert len(load(ImageFolder(path=str(root))).train) == 16


SCRIPT = """
import resource, sys
from pathlib import Path
from nas.data import DataOptions, load_task
from nas.data.image_folder import ImageFolder

root, cache, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
task = load_task(
    ImageFolder(path=root), DataOptions(height=64, width=64), cache_dir=Path(cache), workers=1,
    progress=lambda label, share: print(label, share, flush=True),
)
print(task.data_hash)
"""


def script(root: Path, cache: Path, limit: int = 0) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(root), str(cache), str(limit)]


def test_a_disk_that_refuses_is_a_run_error_and_loses_nothing(tmp_path, folder):
    root = folder({"a": 20, "b": 20})
    done = subprocess.run(script(root, tmp_path / "cache", 100_000), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"{RunError.__module__}.RunError" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    subprocess.run(script(root, tmp_path / "cache"), check=True, capture_output=True, cwd=ROOT)


def test_a_killed_build_is_continued(tmp_path, folder):
    root = folder({"a": 150, "b": 150})
    process = subprocess.Popen(script(root, tmp_path / "cache"), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    whole = subprocess.run(
        script(root, tmp_path / "cache"), check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.split()[-1]
    shutil.rmtree(tmp_path / "cache")
    fresh = load_task(
        ImageFolder(path=str(root)), DataOptions(height=64, width=64), cache_dir=tmp_path / "cache", workers=2
    )
    assert whole == fresh.data_hash


def test_two_processes_share_one_build(tmp_path, folder):
    root = folder({"a": 60, "b": 60})
    processes = [
        subprocess.Popen(script(root, tmp_path / "cache"), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2)
    ]
    hashes = {process.communicate()[0].split()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(hashes) == 1
    assert len(cached(tmp_path)) == 1


def test_a_file_that_is_touched_is_read_again_but_is_the_same_data(load, folder, tmp_path):
    root = folder({"a": 20, "b": 20})
    source = ImageFolder(path=str(root))
    first = load(source).data_hash
    later = time.time() + 10
    os.utime(root / "a" / "000.png", (later, later))
    assert load(source).data_hash == first
    assert len(cached(tmp_path)) == 2
