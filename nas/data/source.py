"""Where labelled images come from: the plug-ins of kind "task" and what they hand over."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from search_spaces.errors import DataError
from search_spaces.registry import Registry

Role = Literal["train", "validation", "test"]
ROLES: tuple[Role, ...] = ("train", "validation", "test")

Pixels = npt.NDArray[np.uint8]
StoredImage = Path | bytes | Pixels
"""An image as its source keeps it: a file, an encoded file's bytes, or raw pixels.

Raw pixels are uint8, `height x width` (grey) or `height x width x channels` with 1, 3 (RGB) or 4 (RGBA)
channels.
"""


class Images(Protocol):
    """Stored images by number; a list, an array, or anything that unpacks itself on the first look."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> StoredImage: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some images with their labels; nothing is decoded yet.

    Attributes:
        images: The `n` images as stored.
        labels: Numbers of their classes, `n`.
        names: What messages call them; unique, the same on every machine.
        groups: Keys of images that must stay on one side of a split, "" for an image of no group; empty for
            none.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    names: Sequence[str]
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """All a task is made from.

    Attributes:
        name: Of the data set, for reports.
        classes: Names of the classes, in the order of the labels.
        train: Training images; splits that are missing are taken from them.
        validation: Images for selection and gates, where the source has such.
        test: Images for the report, where the source has such.
        fingerprint: Changes when any stored image does; empty to have it made from the images: of files their
            size and time of change, of bytes and pixels their content.
        notes: Sentences for the report, such as about files that were passed over.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part | None = None
    test: Part | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        with about(self.name):
            self._check()

    def _check(self) -> None:
        _check_classes(self.classes)
        for role, part in self.parts():
            _check_part(role, part, self.classes)
        missing = sorted(set(range(len(self.classes))) - set(self.train.labels.tolist()))
        if missing:
            names = ", ".join(repr(self.classes[label]) for label in missing[:5])
            others = [r for r, part in self.parts() if np.isin(missing, part.labels).any()]
            elsewhere = f", though the {' and '.join(others)} split has" if others else ""
            raise DataError(f"the training split has no image of {names}{elsewhere}: add some, or take the class out")

    def parts(self) -> Iterator[tuple[Role, Part]]:
        """Yield the splits the source has, training first."""
        yield "train", self.train
        if self.validation is not None:
            yield "validation", self.validation
        if self.test is not None:
            yield "test", self.test

    def flat(self) -> Part:
        """Return all images as one part: training, then validation, then test."""
        parts = [part for _, part in self.parts()]
        return Part(
            images=_Joined(tuple(part.images for part in parts)),
            labels=np.concatenate([part.labels for part in parts]),
            names=[name for part in parts for name in part.names],
            groups=[group for part in parts for group in part.groups or [""] * len(part.labels)],
        )


class TaskSource(Protocol):
    """A plug-in: a frozen dataclass that says where labelled images are."""

    def read(self) -> Source:
        """Return the images and labels without decoding any; raises DataError when they cannot be used."""
        ...


TASKS: Registry[TaskSource] = Registry(
    "task",
    group="embedded_nas.tasks",
    builtin=("nas.data.digits", "nas.data.npz", "nas.data.image_folder"),
)


@contextmanager
def about(name: str) -> Iterator[None]:
    """Put the data set's name before the message of a DataError raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Joined:
    """Several sequences of images as one."""

    parts: tuple[Images, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int, /) -> StoredImage:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def _check_classes(classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"a task needs at least two classes, got {', '.join(map(repr, classes)) or 'none'}")
    counted = Counter(unicodedata.normalize("NFC", name).strip() for name in classes)
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        raise DataError(f"class names must differ, but {', '.join(map(repr, twice[:5]))} stands there twice")
    if "" in counted:
        raise DataError(f"every class needs a name, but one of {', '.join(map(repr, classes[:5]))} is blank")


def _check_part(role: Role, part: Part, classes: tuple[str, ...]) -> None:
    sizes = {len(part.images), len(part.labels), len(part.names), len(part.groups) or len(part.labels)}
    if len(sizes) != 1:
        raise DataError(
            f"the {role} split has {len(part.images)} images, {len(part.labels)} labels, {len(part.names)} "
            f"names and {len(part.groups)} groups; they must be equally many (groups may be none)"
        )
    if not len(part.labels):
        raise DataError(f"the {role} split has no image")
    outside = np.flatnonzero((part.labels < 0) | (part.labels >= len(classes)))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{len(outside)} labels of the {role} split lie outside the {len(classes)} classes, the first at "
            f"{part.names[first]}: {int(part.labels[first])}, expected 0 to {len(classes) - 1}"
        )
