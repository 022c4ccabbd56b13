"""`manifest.json` and `parity.json`: what lies in an export folder, and what is known about it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from latency_models.graph import file_workload, stored_bytes
from nas.candidate import Candidate, Exported, ExportedFile, OnDevice, Parity
from nas.export.audit import Audit
from nas.export.metadata import FORMAT, Record, plan_record
from nas.run import disk_errors, read_json, write_json
from search_spaces.counts import macs, parameters
from search_spaces.errors import RunError
from search_spaces.measurement import Measurement
from search_spaces.memory import plan_memory
from search_spaces.patches import patches_above
from search_spaces.precision import Precision, QuantizationPlan, with_precision
from search_spaces.workload import Workload

MANIFEST = "manifest.json"
PARITY = "parity.json"
NAMES: Mapping[Precision, str] = {"float32": "model.onnx", "int8": "model.int8.onnx"}


def clear(folder: Path) -> None:
    """Remove an earlier export, its manifest first, so that no manifest ever speaks of files of another network."""
    for name in (MANIFEST, PARITY, *NAMES.values()):
        with disk_errors(folder / name):
            (folder / name).unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the hash of a file's bytes, 64 hex digits; raises RunError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; export the network again") from error


def counted(
    workload: Workload, plan: QuantizationPlan | None, *, in_place: bool = False, patch_above: float | None = None
) -> dict[str, Measurement]:
    """Return what the file of a network costs, counted: the one place all that speaks of a file takes this from.

    Args:
        workload: The network, fused or not.
        plan: The 8-bit scheme of the file; None for the float file.
        in_place: Whether the device's runtime lets a depthwise convolution overwrite its input.
        patch_above: Bytes of activations above which it computes the first blocks patch by patch; None for never.
    """
    total, (peak, planned), patched = macs(workload), _planned(workload, plan, in_place=in_place), ""
    if patch_above is not None:
        stage = patches_above(with_precision(workload, plan), patch_above, in_place=in_place)
        if stage is not None:
            total, peak, patched = stage.macs, stage.peak_bytes, stage.words
            planned = f"liveness bound, {patched}"
    found = {
        "weight_bytes": (stored_bytes(workload, plan), "bytes", "as the file stores them"),
        "peak_memory_bytes": (peak, "bytes", planned),
        "macs": (total, "MAC", patched),
        "parameters": (parameters(workload), "parameters", ""),
    }
    return {
        name: Measurement(value=float(value), unit=unit, origin="counted", source=source)
        for name, (value, unit, source) in found.items()
    }


def _planned(workload: Workload, plan: QuantizationPlan | None, *, in_place: bool) -> tuple[int, str]:
    """Return the size of the planned arena, and what to call it."""
    arena = plan_memory(file_workload(workload, plan), in_place=in_place)
    return arena.arena_bytes, "planned arena, image included" + ("" if arena.is_optimal else ", above its lower bound")


def file_entry(file: ExportedFile, model: onnx.ModelProto, figures: Mapping[str, Measurement], audit: Audit) -> Record:
    """Return what the manifest says about one file; `figures` are those of `counted`."""
    return {
        "name": file.path.name,
        "precision": file.precision,
        "sha256": file.sha256,
        "num_bytes": file.num_bytes,
        "opset": opset_of(model),
        "ir_version": model.ir_version,
        "figures": {name: known.to_dict() for name, known in figures.items()},
        "audit": audit.to_dict(),
    }


def opset_of(model: onnx.ModelProto) -> int:
    """Return the opset of ONNX's own operators."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def manifest(candidate: Candidate, shared: Mapping[str, Any], files: Sequence[Record]) -> Record:  # Any: JSON values
    """Return the manifest of an export.

    Args:
        candidate: What was exported.
        shared: The metadata that all files share.
        files: Entries, the float file first; the last one is what the candidate ships as, until a run decides.
    """
    return {
        "format": FORMAT,
        "model": files[-1]["name"],
        "precision": candidate.precision,
        "quantization": plan_record(candidate.quantization),
        "files": list(files),
        "metadata": dict(shared),
        "history": [],
    }


def read_manifest(folder: Path) -> Record:
    """Read the manifest of an export folder; raises RunError when it is missing, damaged or of another format."""
    record = read_json(folder / MANIFEST)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RunError(f"{folder / MANIFEST} is no manifest of format {FORMAT}; export the network again")
    return record


def read_exported(folder: Path) -> Exported:
    """Return what an earlier export left in a folder; raises RunError when it is not there or damaged.

    Nothing is checked but that the manifest is whole; `verify` looks at the files.
    """
    record, parities = read_manifest(folder), read_parities(folder)
    try:
        files = tuple(
            ExportedFile(
                path=folder / entry["name"],
                precision=entry["precision"],
                num_bytes=entry["num_bytes"],
                sha256=entry["sha256"],
                parity=parities[entry["name"]],
                float_operators=entry["audit"]["float_convs"] + entry["audit"]["float_products"],
            )
            for entry in record["files"]
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / MANIFEST} is damaged ({error!r}); export the network again") from error
    return Exported(folder=folder, files=files, manifest=record)


def write_parities(folder: Path, files: Sequence[ExportedFile]) -> None:
    """Write how every file compares with the network."""
    write_json(folder / PARITY, {file.path.name: _finite(asdict(file.parity)) for file in files})


def read_parities(folder: Path) -> dict[str, Parity]:
    """Read them back."""
    record = read_json(folder / PARITY)
    try:
        return {name: Parity(**_infinite(parity)) for name, parity in record.items()}
    except (AttributeError, TypeError) as error:
        raise RunError(f"{folder / PARITY} is damaged ({error}); export the network again") from error


def _finite(record: Mapping[str, Any]) -> Record:  # Any: JSON values
    """Write what is not finite as null, which JSON has."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def _infinite(record: Mapping[str, Any]) -> Record:  # Any: JSON values
    known = {name: math.inf if value is None else value for name, value in record.items() if name != "on_device"}
    there = record.get("on_device")
    return known if there is None else {**known, "on_device": OnDevice(**there)}
