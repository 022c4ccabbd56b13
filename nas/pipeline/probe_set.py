"""Probe sets that people carry to a board and back: model files, an empty table, and the script that fills it in."""

import csv
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from latency_models.backends import timing_script
from latency_models.backends.table import Table, read_table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.probe import BLOCK_INPUT, ProbeOptions, choose_blocks, choose_probes, probe_digest, write_probe
from latency_models.profile import Probed, Profile
from nas.config import describe, restore_space
from nas.protocols import Progress, quiet
from nas.run import write_atomic, write_json
from search_spaces.architecture import Architecture
from search_spaces.errors import DeviceError, NasError
from search_spaces.precision import QuantizationPlan
from search_spaces.restrict import RestrictedChainSpace, RestrictedSpace, restrict
from search_spaces.space import SearchSpace

PROBES = "probes.json"


def write_probes(
    device: Device,
    space: SearchSpace,
    graph_input: GraphInput,
    options: ProbeOptions,
    out: Path,
    *,
    progress: Progress = quiet,
) -> int:
    """Write a probe set: model files, an empty table, the timing script, and what the files are; return their number.

    On the board `python3 timing_script.py fill .` fills the table in, with onnxruntime and numpy; any other tool may.
    `probes.json` is for the way back: with it beside the table, `nas device add NAME --table FILE` needs no run file.
    """
    out.mkdir(parents=True, exist_ok=True)
    allowed = frozenset(device.allow_ops)
    chosen = [(item, "probe") for item in choose_probes(space, options, allowed=allowed)]
    chosen += [(item, "block") for item in choose_blocks(space, options, allowed=allowed)]
    entries: list[dict[str, Any]] = []
    for number, (architecture, purpose) in enumerate(chosen):
        for precision in device.precisions:
            name = f"{architecture.key}.{precision}.onnx"
            taken = BLOCK_INPUT if purpose == "block" else graph_input
            write_probe(architecture, precision, device, taken, out / name, seed=number)
            record = {"file": name, "precision": precision, "purpose": purpose}
            entries.append({**record, "architecture": architecture.to_dict()})
        progress("writing probes", (number + 1) / len(chosen))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "latency_ms", "origin"])
    writer.writerows([entry["file"], "", "tabulated"] for entry in entries)
    write_json(
        out / PROBES,
        {
            "format": 1,
            "probes": probe_digest(space, graph_input, device),
            "quantization": asdict(device.plan),
            "opset": device.opset,
            "ir_version": device.ir_version,
            "allow_ops": list(device.allow_ops),
            "space": _space_record(space),
            "files": entries,
        },
    )
    script = Path(timing_script.__file__)
    shutil.copyfile(script, out / script.name)
    write_atomic(out / "table.csv", text.getvalue())
    return len(entries)


def import_table(device: Device, table: Table) -> tuple[Device, Profile]:
    """Return a device and the profile that a filled-in table makes, with the probe set that lies beside it.

    Rows that were not filled in are left out.

    Raises:
        DeviceError: There is no probe set beside the table, or the table cannot be read.
    """
    beside, record = _read_probes(table)
    files, plan = record["files"], record["quantization"]
    device = replace(
        device,
        quantization=QuantizationPlan(**{**plan, "keep_float": tuple(plan["keep_float"])}),
        opset=min(device.opset, record.get("opset", device.opset)),
        ir_version=min(device.ir_version, record.get("ir_version", device.ir_version)),
        allow_ops=device.allow_ops or tuple(record.get("allow_ops", ())),
    )
    known = read_table(Path(table.path))
    listed = [entry for entry in files if entry["file"] in known]
    timings = table.measure([Path(entry["file"]) for entry in listed], Path())
    networks = tuple(
        Probed(
            architecture=Architecture.from_dict(entry["architecture"]),
            precision=entry["precision"],
            timing=timing,
            purpose=entry["purpose"],
        )
        for entry, timing in zip(listed, timings, strict=True)
    )
    precisions = tuple(precision for precision in device.precisions if any(n.precision == precision for n in networks))
    if not precisions:
        raise DeviceError(f"the table {table.path} holds no latency of the files in {beside}; fill in latency_ms")
    return replace(device, precisions=precisions), Profile(
        device=device.name,
        fingerprint=dict(table.fingerprint()),
        probes=str(record["probes"]),
        seconds=0.0,
        networks=networks,
    )


def carried_space(table: Table) -> SearchSpace | None:
    """Return the space of the probe set beside a table; None where the set does not tell it.

    Sets written by older versions, or from a space that is no registered plug-in, do not.

    Raises:
        DeviceError: There is no probe set beside the table.
        ConfigError: The space is told in words this version does not know.
        PluginError: The space is a plug-in that was not loaded.
    """
    beside, record = _read_probes(table)
    if record.get("space") is None:
        return None
    try:
        return restrict(restore_space(record["space"]), record.get("allow_ops", ()))
    except NasError as error:
        raise type(error)(f"{beside}: {error}") from error


def _read_probes(table: Table) -> tuple[Path, dict[str, Any]]:  # Any: JSON values
    """Return the file that says what the probe set beside a table is, and its content."""
    beside = Path(table.path).parent / PROBES
    try:
        record = dict(json.loads(beside.read_text()))
        return beside, {**record, "files": list(record["files"]), "quantization": dict(record["quantization"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{beside} cannot be read ({error}): a table is imported from the folder that `nas device probe` wrote"
        ) from error


def _space_record(space: SearchSpace) -> Any:  # Any: JSON values
    """Return the space as a run file says it, without its restriction; None for one that is no registered plug-in."""
    whole = space.space if isinstance(space, RestrictedSpace | RestrictedChainSpace) else space
    record = describe(whole)
    return record if isinstance(record, dict) and "type" in record else None
