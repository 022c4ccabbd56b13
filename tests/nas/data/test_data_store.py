import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from nas.data.store import open_entry
from search_spaces.errors import RunError


def builder(calls: list[Path], value: int = 7):
    def build(folder: Path) -> dict[str, int]:
        calls.append(folder)
        np.save(folder / "numbers.npy", np.arange(value))
        return {"value": value}

    return build


def silent(label: str, share: float) -> None:
    pass


def test_an_entry_is_built_once_and_mapped_read_only(tmp_path):
    calls: list[Path] = []
    for _ in range(3):
        entry = open_entry(tmp_path / "cache" / "key", builder(calls), silent)
    assert len(calls) == 1
    assert entry.facts == {"value": 7}
    assert entry.array("numbers").tolist() == list(range(7))
    assert isinstance(entry.array("numbers"), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        entry.array("numbers")[0] = 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "numbers.npy"),
        lambda folder: os.truncate(folder / "numbers.npy", 100),
        lambda folder: (folder / "numbers.npy").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text(json.dumps({"format": 0, "files": {}, "facts": {}})),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
    ids=["bit", "cut", "gone", "torn-manifest", "other-manifest", "old-format", "no-manifest"],
)
def test_a_damaged_entry_is_told_and_built_again(tmp_path, damage):
    calls: list[Path] = []
    told: list[str] = []
    open_entry(tmp_path / "key", builder(calls), silent)
    damage(tmp_path / "key")
    entry = open_entry(tmp_path / "key", builder(calls), lambda label, _share: told.append(label))
    assert len(calls) == 2
    assert told == ["key in the image cache is damaged and made again"]
    assert entry.array("numbers").tolist() == list(range(7))


def test_a_build_that_fails_leaves_no_entry_but_what_it_wrote(tmp_path):
    def fails(folder: Path) -> dict[str, int]:
        (folder / "begun").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_entry(tmp_path / "key", fails, silent)
    assert not (tmp_path / "key").exists()

    def goes_on(folder: Path) -> dict[str, str]:
        return {"found": (folder / "begun").read_text()}

    assert open_entry(tmp_path / "key", goes_on, silent).facts == {"found": "half"}


def _build_slowly(folder: Path) -> dict[str, int]:
    (folder.parent / f"built-by-{os.getpid()}").touch()
    time.sleep(0.3)
    np.save(folder / "numbers.npy", np.arange(3))
    return {}


def _open(folder: Path) -> None:
    assert open_entry(folder, _build_slowly, silent).array("numbers").tolist() == [0, 1, 2]


def test_processes_that_want_the_same_entry_build_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(tmp_path / "key",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("built-by-*"))) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file.*cannot be written"):
        open_entry(tmp_path / "file" / "key", builder([]), silent)
