"""Images in one .npz file: arrays of raw pixels, or encoded files laid end to end."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.data.source import TASKS, Part, Pixels, Role, Source
from search_spaces.errors import DataError

_SPLITS: Mapping[str, Role] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}


@TASKS.register("npz")
@dataclass(frozen=True, slots=True, kw_only=True)
class Npz:
    """An .npz file with these arrays, for SPLIT in train, validation (or val) and test; train must be there.

    - `x_SPLIT`: uint8 pixels, `n x height x width` (grey) or `n x height x width x channels` (1, 3 or 4), or
    - `x_SPLIT_blob` and `x_SPLIT_offset`: encoded files (JPEG, PNG, ...) end to end as uint8, and `n + 1`
      offsets; image i is `blob[offset[i]:offset[i + 1]]`.
    - `y_SPLIT`: integer labels, `n`.
    - `classes`: names of the classes in the order of the labels; without it they are the numbers 0 to the
      largest label.
    - `name_SPLIT`, `group_SPLIT`: names for messages, and groups for splits, `n` strings; both may be
      missing.

    Nothing is unpickled. The file is hashed whenever it is read, and pixels are unpacked only when they are
    asked for.

    Attributes:
        path: The file.
    """

    path: str = field(metadata={"path": True})

    def read(self) -> Source:
        """Return its images; raises DataError when the file is missing, damaged or laid out differently."""
        file = Path(self.path)
        try:
            with file.open("rb") as stream:
                fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()
                stream.seek(0)
                archive = np.load(stream, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise DataError(f"{file} holds one array, expected an .npz archive of several")
                return _source(file, archive, fingerprint)
        except FileNotFoundError as error:
            raise DataError(f"{file} does not exist") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{file} cannot be read as .npz: {error}") from error


@dataclass(frozen=True, eq=False)
class _Arrays:
    """The images of one split, unpacked at the first look."""

    path: Path
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Pixels:
        found: Pixels = self._pixels[index]
        return found

    @cached_property
    def _pixels(self) -> Pixels:
        name = f"x_{self.split}"
        pixels = _member(self.path, name)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or 0 in pixels.shape:
            raise DataError(
                f"{self.path}: {name} must be uint8, n x height x width [x channels], got {pixels.dtype} "
                f"{pixels.shape}; scale other types to 0..255 first"
            )
        if pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4):
            raise DataError(
                f"{self.path}: {name} must have 1, 3 or 4 channels last, got the shape {pixels.shape}"
                + ("; move the channels to the end" if pixels.shape[1] in (1, 3, 4) else "")
            )
        _equal(self.path, name, len(pixels), self.split, self.count)
        return pixels


@dataclass(frozen=True, eq=False)
class _Blobs:
    """The encoded images of one split, unpacked at the first look."""

    path: Path
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> bytes:
        blob, offsets = self._content
        return bytes(blob[offsets[index] : offsets[index + 1]])

    @cached_property
    def _content(self) -> tuple[memoryview, list[int]]:
        blob: Pixels = _member(self.path, f"x_{self.split}_blob")
        offsets = _member(self.path, f"x_{self.split}_offset").astype(np.int64)
        if blob.dtype != np.uint8 or blob.ndim != 1:
            raise DataError(f"{self.path}: x_{self.split}_blob must be uint8 in a row, got {blob.dtype} {blob.shape}")
        _equal(self.path, f"x_{self.split}_offset", len(offsets) - 1, self.split, self.count)
        if offsets[0] < 0 or offsets[-1] > len(blob) or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{self.path}: x_{self.split}_offset must rise from 0 to at most {len(blob)}, the blob's end"
            )
        return blob.data, offsets.tolist()


def _source(file: Path, archive: Mapping[str, npt.NDArray[Any]], fingerprint: str) -> Source:
    parts: dict[Role, Part] = {}
    for split, role in _SPLITS.items():
        if f"y_{split}" not in archive:
            continue
        if role in parts:
            raise DataError(f"{file} has y_validation and y_val; leave one of them out")
        parts[role] = _part(file, archive, split)
    if "train" not in parts:
        raise DataError(f"{file} has no labels y_train; it holds {', '.join(sorted(archive))}")
    if "classes" in archive:
        classes = tuple(str(name) for name in archive["classes"].ravel())
    else:
        largest = max(int(part.labels.max(initial=0)) for part in parts.values())
        classes = tuple(str(number) for number in range(largest + 1))
    return Source(
        name=file.stem,
        classes=classes,
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        fingerprint=fingerprint,
    )


def _part(file: Path, archive: Mapping[str, npt.NDArray[Any]], split: str) -> Part:
    labels = archive[f"y_{split}"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{file}: y_{split} must be integers in a row, got {labels.dtype} {labels.shape}")
    images: _Arrays | _Blobs
    if f"x_{split}" in archive:
        images = _Arrays(file, split, len(labels))
    elif f"x_{split}_blob" in archive and f"x_{split}_offset" in archive:
        images = _Blobs(file, split, len(labels))
    else:
        raise DataError(
            f"{file} has y_{split} but neither x_{split} nor x_{split}_blob with x_{split}_offset; "
            f"it holds {', '.join(sorted(archive))}"
        )
    given = _texts(file, archive, f"name_{split}", len(labels))
    names = [f"{split}[{number}]" for number in range(len(labels))]
    return Part(
        images=images,
        labels=labels.astype(np.int64),
        names=[f"{name} {own}" for name, own in zip(names, given, strict=True)] if given else names,
        groups=_texts(file, archive, f"group_{split}", len(labels)),
    )


def _texts(file: Path, archive: Mapping[str, npt.NDArray[Any]], name: str, count: int) -> list[str]:
    if name not in archive:
        return []
    texts = archive[name]
    if texts.shape != (count,):
        raise DataError(f"{file}: {name} must be {count} strings, one a label, got the shape {texts.shape}")
    return [str(text) for text in texts]


def _member(file: Path, name: str) -> npt.NDArray[Any]:
    try:
        with file.open("rb") as stream:
            member: npt.NDArray[Any] = np.load(stream, allow_pickle=False)[name]
            return member
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: {name} cannot be unpacked: {error}") from error


def _equal(file: Path, name: str, found: int, split: str, labels: int) -> None:
    if found != labels:
        raise DataError(f"{file}: {name} describes {found} images, but y_{split} has {labels} labels")
