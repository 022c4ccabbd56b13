"""The run directory: one lock, one event log that is the truth, and files that are either whole or absent.

    runs/NAME/
      run.lock  config.json  environment.json  study.journal  evaluations.jsonl
      architectures/KEY.json
      candidates/KEY/00-trained/ 01-prune/ ...
      exports/KEY/  report/index.html

`evaluations.jsonl` has one line for every event, synced to disk before the work it announces starts and before
anybody is told its result. A process that is killed can tear its last line; opening the directory again cuts both
logs back to their last whole line.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Self

from search_spaces.errors import RunError

Event = Mapping[str, Any]  # Any: JSON values

_PACKAGES = (
    "embedded-nas",
    "torch",
    "optuna",
    "numpy",
    "scipy",
    "scikit-learn",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


@dataclass(slots=True)
class EventLog:
    """An append-only file of JSON lines; every line is on disk when `append` returns."""

    path: Path
    events: list[Event] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a log, after cutting it back to its last whole line.

        Raises:
            RunError: A whole line is no event, a JSON object with a string "event": the file was damaged by something
                else than a kill, which tears the last line only.
        """
        cut_torn_line(path)
        events = []
        if path.exists():
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                try:
                    events.append(_event(line))
                except (ValueError, TypeError) as error:
                    raise RunError(
                        f"{path} line {number} is damaged ({error}); restore it from a backup, or start another run"
                    ) from error
        return cls(path, events)

    def append(self, event: Event) -> None:
        """Write one event and wait until it is on disk; raises RunError when the disk refuses."""
        line = json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with disk_errors(self.path), self.path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)
                raise
        self.events.append(event)

    def of(self, kind: str) -> list[Event]:
        """Return all events of one kind, in order."""
        return [event for event in self.events if event["event"] == kind]


class RunDirectory:
    """One run's files, held by one process at a time."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self.log = EventLog.open(path / "evaluations.jsonl")

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Create a run directory or continue one.

        Args:
            path: The directory; parents are made.
            config: The resolved configuration; a directory in which anything was trained by another one is refused.

        Raises:
            RunError: Another process runs it, it belongs to another configuration, or the disk refuses.
        """
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
        try:
            _check_config(path, config)
            _record_environment(path)
            journal = path / "study.journal"
            cut_torn_line(journal)
            for stale in path.glob("study.journal.lock*"):
                stale.unlink()
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.path / "study.journal"

    @property
    def identity(self) -> str:
        """Return a name that tells this run from all others, for databases that hold several.

        The directory's name and a digest of the machine, where the directory lies on it, and its configuration: equal
        in every session of one directory. A directory that was moved or copied is another run to a database; as the
        event log is the truth, what it holds is told there anew, and the study of the old place stays behind.
        """
        place = self.path.resolve()
        record = json.dumps([platform.node(), str(place), read_json(place / "config.json")], sort_keys=True)
        return f"{place.name}-{hashlib.sha256(record.encode()).hexdigest()[:12]}"

    def folder(self, *parts: str) -> Path:
        """Return a folder of the run, made if it is not there."""
        path = self.path.joinpath(*parts)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary name beside it, synced, then moved.

    Raises:
        RunError: The disk is full or refuses; the old file is as it was.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, record: object) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_atomic(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # Any: JSON values
    """Read a JSON file; raises RunError when it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{path} is not there") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it to have it made again") from error


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk is full: {path} was not written; free space and run again") from error
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def cut_torn_line(path: Path) -> int:
    """Cut a file of JSON lines back to its last whole, readable line; return the bytes removed."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    keep = data.rfind(b"\n") + 1
    if keep:
        start = data.rfind(b"\n", 0, keep - 1) + 1
        try:
            json.loads(data[start:keep])
        except ValueError:
            keep = start
    if keep < len(data):
        with disk_errors(path), path.open("r+b") as file:
            file.truncate(keep)
            os.fsync(file.fileno())
    return len(data) - keep


def _event(line: bytes) -> Event:
    event = json.loads(line)
    if not (isinstance(event, dict) and isinstance(event.get("event"), str)):
        raise TypeError(f'expected an object that names its kind of event under "event", got {repr(event)[:60]}')
    return event


def _take_lock(path: Path) -> IO[str]:
    with disk_errors(path / "run.lock"):
        lock = (path / "run.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise RunError(f"{path} is in use by process {holder}; wait for it or choose another --run-dir") from error
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _check_config(path: Path, config: Mapping[str, Any]) -> None:  # Any: JSON values
    file = path / "config.json"
    given = json.loads(json.dumps(config))
    if not file.exists():
        write_json(file, given)
        return
    known = read_json(file)
    place = _first_difference(known, given)
    if place is not None and not _anything_trained(path):
        write_json(file, given)
    elif place is not None:
        name, before, now = place
        raise RunError(
            f"{path} belongs to another configuration: {name} was {before!r} and is {now!r}; "
            "choose another --run-dir, or remove this one"
        )


def _anything_trained(path: Path) -> bool:
    """Tell whether a run directory holds work that belongs to its configuration; data and device know their own."""
    log = path / "evaluations.jsonl"
    return (log.exists() and log.stat().st_size > 0) or (path / "candidates").exists() or (path / "teacher").exists()


def _first_difference(before: object, now: object, name: str = "") -> tuple[str, object, object] | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            found = _first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if before == now else (name, before, now)


def _record_environment(path: Path) -> None:
    file = path / "environment.json"
    sessions = read_json(file)["sessions"] if file.exists() else []
    now = environment()
    if not sessions or sessions[-1] != now:
        write_json(file, {"sessions": [*sessions, now]})


def environment() -> dict[str, str]:
    """Return versions of Python, the packages that make results, and the machine."""
    found = {"python": sys.version.split()[0], "machine": platform.machine(), "system": platform.system()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
