"""A cache of folders that are whole, checked and shared: built once, under a lock, and moved into place.

An entry is a folder of arrays (.npy) with a `manifest.json` that holds their SHA-256 and some facts. While it
is built it is called NAME.partial, and what is in there is used when the same entry is built again after a
kill. Processes that want the same entry wait for the one that builds it. An entry whose files are not what
the manifest says is made again. Nothing is ever removed but damaged entries.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.run import disk_errors, write_json
from search_spaces.errors import RunError

Facts = Mapping[str, Any]  # Any: JSON values
Report = Callable[[str, float], None]
"""Told what is done and the share of it, 0 to 1; `nas.protocols.Progress`."""

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A whole, checked folder of the cache.

    Attributes:
        folder: Where it is.
        facts: What its builder said of it.
        digests: SHA-256 of each file, by name.
    """

    folder: Path
    facts: Facts
    digests: Mapping[str, str]

    def array(self, name: str) -> npt.NDArray[Any]:  # Any: the dtype is the builder's
        """Return an array, read-only and mapped from its file."""
        mapped: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return mapped


def open_entry(folder: Path, build: Callable[[Path], Facts], report: Report) -> Entry:
    """Return an entry of the cache, building it if it is missing or damaged.

    Args:
        folder: The entry.
        build: Writes the entry's files into the folder it is given, which may hold what an earlier, killed
            call wrote; returns facts about them.
        report: Told about waiting and rebuilding.

    Raises:
        RunError: The disk is full or refuses.
    """
    found = _read(folder)
    if found is not None:
        return found
    with _lock(folder, report):
        found = _read(folder)
        if found is not None:
            return found
        if folder.exists():
            report(f"{folder.name} in the image cache is damaged and made again", 0.0)
            with disk_errors(folder):
                shutil.rmtree(folder)
        partial = folder.with_name(f"{folder.name}.partial")
        with disk_errors(partial):
            partial.mkdir(exist_ok=True)
        facts = build(partial)
        digests = {path.name: _sha256(path) for path in sorted(partial.glob("*.npy"))}
        write_json(partial / _MANIFEST, {"format": FORMAT, "files": digests, "facts": facts})
        with disk_errors(folder):
            partial.rename(folder)
    found = _read(folder)
    if found is None:
        raise RunError(f"{folder} was written but reads back differently; check the disk")
    return found


def _read(folder: Path) -> Entry | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return None
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                return None
        return Entry(folder, manifest["facts"], manifest["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path, report: Report) -> Iterator[None]:
    """Hold the right to build an entry; the kernel takes it back from a process that dies."""
    path = folder.with_name(f".{folder.name}.lock")
    with disk_errors(path):
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process to build {folder.name} in the image cache", 0.0)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
