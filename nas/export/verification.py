"""Whether the files of an export folder are still those that were checked, and still compute the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import checker

from latency_models.backends.local import open_session
from nas.candidate import Candidate
from nas.export.manifest import opset_of, read_manifest, sha256
from nas.export.metadata import of_file, read
from nas.export.parity import compare
from nas.task import Task
from search_spaces.errors import MeasurementError, ParityFailed, RunError

Record = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        file: Name of the file.
        name: hash, graph, metadata, runtime or parity.
        passed: Whether it is as it should be.
        reason: One sentence.
    """

    file: str
    name: str
    passed: bool
    reason: str


def verify(
    folder: Path, *, candidate: Candidate | None = None, task: Task | None = None, images: int = 512
) -> tuple[Check, ...]:
    """Check every file of an export folder against its manifest and, where it is given, against its network.

    Args:
        folder: With a manifest.
        candidate: What was exported, for parity.
        task: Whose validation images to compare on, for parity.
        images: How many.

    Returns:
        One check for each file and name; parity only where both candidate and task are given.

    Raises:
        RunError: There is no readable manifest.
    """
    record = read_manifest(folder)
    checks = []
    for entry in record["files"]:
        path = folder / entry["name"]
        checks.append(_hash(path, entry))
        if not path.exists():
            continue
        checks += [_graph(path, entry), _metadata(path, entry, record), _runtime(path)]
        if candidate is not None and task is not None and checks[-1].passed:
            parity = compare(
                path,
                candidate.module,
                task.validation,
                candidate.preprocessing,
                precision=entry["precision"],
                images=images,
            )
            checks.append(Check(file=path.name, name="parity", passed=parity.passed, reason=parity.reason))
    return tuple(checks)


def require_verified(checks: tuple[Check, ...]) -> None:
    """Raise for the first failed check: ParityFailed for parity, RunError for everything else."""
    for check in checks:
        if not check.passed:
            kind = ParityFailed if check.name == "parity" else RunError
            raise kind(f"{check.file}: {check.reason}")


def _hash(path: Path, entry: Record) -> Check:
    if not path.exists():
        return Check(file=path.name, name="hash", passed=False, reason="the file is missing")
    found = sha256(path)
    if found == entry["sha256"]:
        return Check(file=path.name, name="hash", passed=True, reason=f"SHA-256 {found[:16]}... as exported")
    return Check(
        file=path.name,
        name="hash",
        passed=False,
        reason=f"the file was changed after its export: SHA-256 {found[:16]}..., expected {entry['sha256'][:16]}...",
    )


def _graph(path: Path, entry: Record) -> Check:
    def look() -> str:
        model = onnx.load(path)
        checker.check_model(model, full_check=True)
        found = (opset_of(model), int(model.ir_version))
        if found != (entry["opset"], entry["ir_version"]):
            raise ValueError(f"opset and IR version {found}, expected {(entry['opset'], entry['ir_version'])}")
        return f"valid ONNX, opset {found[0]}, IR version {found[1]}"

    return _check(path, "graph", look)


def _metadata(path: Path, entry: Record, manifest: Record) -> Check:
    def look() -> str:
        found = read({item.key: item.value for item in onnx.load(path).metadata_props})
        plan = manifest["quantization"] if entry["precision"] == "int8" else None
        expected = of_file(manifest["metadata"], entry["precision"], plan)
        wrong = sorted(key for key in expected.keys() | found.keys() if found.get(key) != expected.get(key))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} in the file and in the manifest are not the same")
        return "the file says of itself what the manifest says"

    return _check(path, "metadata", look)


def _runtime(path: Path) -> Check:
    try:
        open_session(path)
    except MeasurementError as error:
        return Check(file=path.name, name="runtime", passed=False, reason=str(error))
    return Check(file=path.name, name="runtime", passed=True, reason="onnxruntime loads it")


def _check(path: Path, name: str, look: Callable[[], str]) -> Check:
    """Return what `look` says; onnx raises protobuf's, its own and built-in errors for a damaged file."""
    try:
        return Check(file=path.name, name=name, passed=True, reason=look())
    except (ValueError, TypeError, KeyError, RuntimeError, checker.ValidationError, DecodeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return Check(file=path.name, name=name, passed=False, reason=reason)
