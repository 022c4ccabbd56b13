import numpy as np

from nas.data.identical import conflicts, content_digest, overlaps, pixel_digests, stored_keys


def test_files_are_the_same_when_their_bytes_are(tmp_path):
    files = [tmp_path / f"{number}" for number in range(5)]
    for file, content in zip(files, (b"aa", b"ab", b"aa", b"abc"), strict=False):
        file.write_bytes(content)
    keys = stored_keys(files)
    assert keys[0] == keys[2]
    assert len(set(keys)) == 4


def test_a_file_is_read_only_when_another_has_its_size(tmp_path):
    alone, twin, other = tmp_path / "alone", tmp_path / "twin", tmp_path / "other"
    alone.write_bytes(b"123")
    twin.write_bytes(b"12")
    other.write_bytes(b"34")
    assert stored_keys([alone, twin, other])[0] == ("size", 3)


def test_missing_files_are_like_no_other(tmp_path):
    keys = stored_keys([tmp_path / "a", tmp_path / "b"])
    assert keys[0] != keys[1]


def test_arrays_of_other_shapes_differ():
    assert content_digest(np.zeros((2, 3), np.uint8)) != content_digest(np.zeros((3, 2), np.uint8))
    assert content_digest(np.zeros((2, 3), np.uint8)) == content_digest(np.zeros((2, 6), np.uint8)[:, ::2])


def test_overlaps_name_the_first_of_the_others():
    assert overlaps(["a", "b", "c"], ["c", "x", "c", "a"]) == [(0, 3), (2, 0)]


def test_conflicts_are_the_same_image_with_other_labels():
    keys = ["a", "b", "a", "a", "b"]
    assert conflicts(keys, np.array([0, 1, 1, 0, 1])) == [(0, 2)]


def test_pixels_are_compared_in_the_rows_asked_for(rng):
    images = rng.integers(0, 256, (4, 2, 2, 1), np.uint8)
    images[3] = images[1]
    digests = pixel_digests(images, [1, 2, 3])
    assert digests[0] == digests[2] != digests[1]
