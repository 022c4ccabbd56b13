"""Image files in folders: a folder a class, a folder a split with those inside, or a CSV manifest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.decode import SUFFIXES
from nas.data.manifest import Row, read_manifest
from nas.data.notes import listed, some
from nas.data.source import ROLES, TASKS, Part, Role, Source
from search_spaces.errors import DataError, near_matches

SPLIT_NAMES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Names, in lower case, of folders and of manifest entries that stand for splits."""


@TASKS.register("image_folder")
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder:
    """Image files under one folder, in one of three layouts.

    - `path/CLASS/**/IMAGE`: a folder a class, images at any depth below it; splits are made.
    - `path/SPLIT/CLASS/**/IMAGE`: when every folder in `path` is named for a split (train, val, valid,
      validation, test, ...); splits that are missing are made from the training images.
    - a manifest: a CSV file with the columns `path,label[,split][,group]`, paths relative to `path`. Images
      of a group stay on one side of the splits we make. Rows without a split are training images.

    Files and folders whose name starts with a dot are passed over; files whose suffix is no image's are
    passed over, too, and named in a note. Links to files and to class folders are followed, links deeper down
    to folders are not.

    Attributes:
        path: The folder.
        manifest: The CSV file, relative to `path`; empty for none.
        classes: Class names in the order the labels shall have, when that matters on the device. Empty: all
            that occur, as numbers if all of them are integers, else in the order of their text.
    """

    path: str = field(metadata={"path": True})
    manifest: str = ""
    classes: tuple[str, ...] = ()

    def read(self) -> Source:
        """Return the images found; raises DataError when a folder, a class or a row cannot be used."""
        root = Path(self.path)
        if not root.is_dir():
            raise DataError(f"{root} is {'no folder' if root.exists() else 'not there'}, expected a folder of images")
        notes: list[str] = []
        manifest = root / self.manifest
        rows = read_manifest(manifest, root, SPLIT_NAMES) if self.manifest else _walk(root, notes)
        classes = self.classes or _ordered({row.label for row in rows})
        labels = {name: label for label, name in enumerate(classes)}
        for row in rows:
            if row.label not in labels:
                raise DataError(
                    f"{row.place}: {row.label!r} is not among the {len(classes)} classes; "
                    f"{near_matches(row.label, classes)}"
                )
        parts = {role: _part([row for row in rows if row.split == role], labels) for role in ROLES}
        if not len(parts["train"].labels):
            raise DataError(f"{root} has no training image")
        return Source(
            name=root.resolve().name,
            classes=tuple(classes),
            train=parts["train"],
            validation=parts["validation"] if len(parts["validation"].labels) else None,
            test=parts["test"] if len(parts["test"].labels) else None,
            notes=tuple(notes),
        )


def _part(rows: Sequence[Row], labels: Mapping[str, int]) -> Part:
    return Part(
        images=[row.file for row in rows],
        labels=np.array([labels[row.label] for row in rows], np.int64),
        names=[row.name for row in rows],
        groups=[row.group for row in rows],
    )


def _ordered(names: set[str]) -> tuple[str, ...]:
    # A firmware that takes the output's number for the class expects 10 after 9, not after 1.
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _walk(root: Path, notes: list[str]) -> list[Row]:
    """Return a row for every image file, in the order of their paths; adds a note about files passed over."""
    folders = _subfolders(root)
    if not folders:
        raise DataError(f"{root} holds no folder, expected one for each class")
    splits = [SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
    if all(splits):
        rows, skipped = _walk_splits(root, folders, [split for split in splits if split])
    elif "train" in splits:
        others = [repr(folder.name) for folder, split in zip(folders, splits, strict=True) if split is None]
        raise DataError(
            f"{root} holds a folder for training images and others that are no split ({some(others)}): "
            "expected either a folder for each class, or folders named train, validation and test"
        )
    else:
        rows, skipped = _walk_classes(root, folders, "train", must_hold=True)
    if skipped:
        notes.append(listed("Files passed over, since their suffix is no image's", skipped))
    return rows


def _walk_splits(root: Path, folders: Sequence[Path], splits: Sequence[Role]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    skipped: list[str] = []
    for role in ROLES:
        named = [folder for folder, split in zip(folders, splits, strict=True) if split == role]
        if len(named) > 1:
            raise DataError(f"{root} holds both {named[0].name!r} and {named[1].name!r}; join them")
        if not named:
            continue
        inside = _subfolders(named[0])
        if not inside:
            raise DataError(f"{named[0]} holds no folder, expected one for each class")
        found, passed = _walk_classes(root, inside, role, must_hold=role == "train")
        rows += found
        skipped += passed
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{root} has folders for {' and '.join(splits)} but none for training images")
    return rows, skipped


def _walk_classes(root: Path, folders: Sequence[Path], role: Role, *, must_hold: bool) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    skipped: list[str] = []
    for folder in folders:
        count = len(rows)
        for file in _files(folder):
            name = file.relative_to(root).as_posix()
            if file.suffix.lower() in SUFFIXES:
                rows.append(Row(file=file, label=folder.name, name=name, place=str(folder), split=role))
            else:
                skipped.append(name)
        if must_hold and len(rows) == count:
            raise DataError(f"class folder {folder} holds no image: add some, or remove the folder")
    return rows, skipped


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)
