"""From stored images to one array of pixels on disk: decoded, scaled and written a few at a time."""

import contextlib
import errno
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Self, TypeVar

import numpy as np
import numpy.typing as npt

from nas.data.decode import UnreadableImage, decode
from nas.data.resize import resize
from nas.data.source import Images, Pixels, StoredImage
from nas.data.store import Report
from nas.run import disk_errors
from nas.task import Preprocessing

A = TypeVar("A")
B = TypeVar("B")

_BLOCK = 64
"""Images a thread takes at once."""
_SYNC_SECONDS = 2.0
"""What a killed run loses at most, and the images under way."""


def read_pixels(stored: StoredImage, preprocessing: Preprocessing) -> Pixels:
    """Return one image as the network's input before normalization: `height x width x channels`, uint8.

    Raises:
        UnreadableImage: It cannot be decoded; the message is the reason, without the image's name.
    """
    pixels = np.asarray(resize(decode(stored, preprocessing), preprocessing), np.uint8)
    if preprocessing.color == "grey":
        return pixels[:, :, None]
    return pixels[:, :, ::-1] if preprocessing.color == "bgr" else pixels


def write_pixels(
    path: Path, images: Images, preprocessing: Preprocessing, *, workers: int, report: Report
) -> dict[int, str]:
    """Write all images to an .npy file, `n x height x width x channels`, going on where it was stopped.

    At most `2 * workers` blocks of 64 images are held in memory at once, each image at its final size but for
    one at full size a worker.

    Args:
        path: The file; beside it, while it is written, stands `path.done` with one byte an image.
        images: As stored.
        preprocessing: What to make of them.
        workers: Threads; Pillow decodes and scales outside Python's lock. The result does not depend on them.
        report: Told the share done.

    Returns:
        The reason for every image that cannot be read, by number; its pixels are zero.
    """
    failures: dict[int, str] = {}
    shape = (len(images), preprocessing.height, preprocessing.width, preprocessing.channels)
    with _Rows(path, shape) as rows, warnings.catch_warnings():
        # Pillow warns, without an image's name, of damage that the rules settle.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        blocks = [rows.missing[start : start + _BLOCK] for start in range(0, len(rows.missing), _BLOCK)]
        given = ((block, [images[number] for number in block]) for block in blocks)
        finished = len(images) - len(rows.missing)
        for numbers, results in _in_order(partial(_read_block, preprocessing=preprocessing), given, workers):
            for number, result in zip(numbers, results, strict=True):
                if isinstance(result, str):
                    failures[number] = result
                else:
                    rows.put(number, result)
            finished += len(numbers)
            report("decoding images", finished / len(images))
    return failures


def keep_rows(path: Path, source: Path, rows: npt.NDArray[np.int64]) -> None:
    """Write these rows of one .npy file to another and remove the one; it is moved when all are kept."""
    whole = np.load(source, mmap_mode="r", allow_pickle=False)
    if len(rows) == len(whole):
        with disk_errors(path):
            source.replace(path)
    else:
        with disk_errors(path), path.open("wb") as file:
            _header(file, (len(rows), *whole.shape[1:]))
            for start in range(0, len(rows), _BLOCK):
                file.write(whole[rows[start : start + _BLOCK]].tobytes())
        source.unlink()
    _beside(source).unlink()


class _Rows:
    """An .npy file of uint8 that is filled row by row; marks beside it say which rows are on disk.

    Attributes:
        missing: Rows that no earlier call has written, ascending.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        done = _done(path, shape)
        self.missing: list[int] = np.flatnonzero(done == 0).tolist()
        self._size = int(np.prod(shape[1:]))
        self._start = path.stat().st_size - shape[0] * self._size
        self._unmarked: list[int] = []
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        with disk_errors(self._path):
            self._file = self._path.open("r+b")
            self._marks = _beside(self._path).open("r+b")
        return self

    def __exit__(self, *_: object) -> None:
        with self._file, self._marks:
            self._sync()

    def put(self, number: int, pixels: Pixels) -> None:
        with disk_errors(self._path):
            _write(self._file, pixels.tobytes(), self._start + number * self._size)
        self._unmarked.append(number)
        if time.monotonic() > self._synced + _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        """Mark rows as written, once they are on disk."""
        with disk_errors(self._path):
            os.fsync(self._file.fileno())
            for number in self._unmarked:
                _write(self._marks, b"\x01", number)
        self._unmarked.clear()
        self._synced = time.monotonic()


def _read_block(
    block: tuple[list[int], list[StoredImage]], *, preprocessing: Preprocessing
) -> tuple[list[int], list[Pixels | str]]:
    """Return the numbers of a block of images, and the pixels of each or the reason why there are none."""
    results: list[Pixels | str] = []
    for stored in block[1]:
        try:
            results.append(read_pixels(stored, preprocessing))
        except UnreadableImage as error:
            results.append(str(error))
    return block[0], results


def _done(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return which rows an earlier call has written; if none, make the file at its full size, all zero."""
    beside = _beside(path)
    with contextlib.suppress(OSError, ValueError):  # not there, or not what we would have written: begin anew
        done = np.fromfile(beside, np.uint8)
        known = np.load(path, mmap_mode="r", allow_pickle=False)
        if known.shape == shape and len(done) == shape[0]:
            return done
    with disk_errors(path):
        beside.unlink(missing_ok=True)
        with path.open("wb") as file:
            _header(file, shape)
            file.truncate(file.tell() + int(np.prod(shape)))
        beside.write_bytes(bytes(shape[0]))
    return np.zeros(shape[0], np.uint8)


def _in_order(function: Callable[[A], B], items: Iterator[A], workers: int) -> Iterator[B]:
    """Yield the results in the order of the items, working ahead no further than two items a worker."""
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _header(file: IO[bytes], shape: Sequence[int]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    )


def _write(file: IO[bytes], data: bytes, place: int) -> None:
    if os.pwrite(file.fileno(), data, place) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.done")
