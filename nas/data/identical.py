"""Which images are the same: by their stored bytes before decoding, by their final pixels after."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.data.source import Images, Pixels, StoredImage


def stored_keys(images: Images) -> list[Hashable]:
    """Return one key an image; two images have the same key exactly when their stored bytes are the same.

    A file is read only when another file has its size. A file that cannot be read is like no other.
    """
    stored = [images[number] for number in range(len(images))]
    sizes = [_size(image) for image in stored]
    shared = {size for size, count in Counter(sizes).items() if count > 1}
    keys: list[Hashable] = []
    for number, (image, size) in enumerate(zip(stored, sizes, strict=True)):
        if size < 0:
            keys.append(("unreadable", number))
        elif isinstance(image, Path) and size not in shared:
            keys.append(("size", size))
        else:
            keys.append(content_digest(image))
    return keys


def content_digest(image: StoredImage) -> bytes:
    """Return a digest of an image as it is stored; of a file that cannot be read, of nothing."""
    if isinstance(image, np.ndarray):
        return _digest(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
    if isinstance(image, Path):
        try:
            return _digest(image.read_bytes())
        except OSError:
            return b""
    return _digest(image)


def pixel_digests(images: Pixels, rows: Iterable[int]) -> list[bytes]:
    """Return a digest of the final pixels, all that a network sees, of the images in these rows."""
    return [_digest(images[row].tobytes()) for row in rows]


def overlaps(these: Sequence[Hashable], others: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return the number of every one of these keys that is among the others, with its first place there."""
    places = {key: number for number, key in reversed(list(enumerate(others)))}
    return [(number, places[key]) for number, key in enumerate(these) if key in places]


def conflicts(keys: Sequence[Hashable], labels: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return pairs of images that are the same but bear different labels: each with the first of its kind."""
    seen: dict[Hashable, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        seen[key].append(number)
    return [
        (numbers[0], other) for numbers in seen.values() for other in numbers[1:] if labels[other] != labels[numbers[0]]
    ]


def _size(image: StoredImage) -> int:
    if isinstance(image, Path):
        try:
            return image.stat().st_size
        except OSError:
            return -1
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
