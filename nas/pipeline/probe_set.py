"""Probe sets that people carry to a board and back: model files, an empty table, and the script that fills it in."""

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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
from search_spaces.errors import ConfigError, DeviceError, NasError, PluginError
from search_spaces.precision import QuantizationPlan
from search_spaces.restrict import RestrictedChainSpace, RestrictedSpace, restrict
from search_spaces.space import SearchSpace

PROBES = "probes.json"
TABLE = "table.csv"
SPREAD = 1.5
"""Ratio of the quartiles of one file's rows above which something else than noise is suspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMatch:
    """How a table fits the probe set beside it.

    Attributes:
        files: Of the probe set.
        filled: Of those, the ones with a latency.
        unknown: Files of the table with a latency that are none of the set.
        uneven: Files whose rows' quartiles differ by more than `SPREAD`.
    """

    files: int
    filled: int
    unknown: tuple[str, ...]
    uneven: tuple[str, ...]

    def sentence(self) -> str:
        """Return the counts in words."""
        return (
            f"table: {self.filled} of {self.files} files of the probe set have a latency, {self.files - self.filled} "
            f"missing; {len(self.unknown)} unknown to the set{': ' if self.unknown else ''}{_first(self.unknown)}"
        )

    def warning(self) -> str:
        """Return what is suspicious about the rows; empty where nothing is."""
        if not self.uneven:
            return ""
        return (
            f"{len(self.uneven)} {'files have' if len(self.uneven) > 1 else 'file has'} rows that differ by more than "
            f"{SPREAD:g} times ({_first(self.uneven)}): look for rows of another file, unit or device"
        )


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
    It is written first and lists every file of the set, so that whatever became of a set, the next one can replace it.

    Raises:
        ConfigError: The folder holds latencies of an earlier set, or files of which nobody knows what they are.
        DeviceError: The space has too few networks that the device can run.
    """
    require_unfilled(out)
    out.mkdir(parents=True, exist_ok=True)
    allowed = frozenset(device.allow_ops)
    chosen = [(item, "probe") for item in choose_probes(space, options, allowed=allowed)]
    chosen += [(item, "block") for item in choose_blocks(space, options, allowed=allowed)]
    entries = [
        {"file": name, "precision": precision, "purpose": purpose, "architecture": architecture.to_dict()}
        for architecture, purpose in chosen
        for precision in device.precisions
        for name in (_file_name(architecture, precision),)
    ]
    _remove_set(out)
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
    for number, (architecture, purpose) in enumerate(chosen):
        for precision in device.precisions:
            taken = BLOCK_INPUT if purpose == "block" else graph_input
            write_probe(architecture, precision, device, taken, out / _file_name(architecture, precision), seed=number)
        progress("writing probes", (number + 1) / len(chosen))
    script = Path(timing_script.__file__)
    shutil.copyfile(script, out / script.name)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "latency_ms", "origin"])
    writer.writerows([entry["file"], "", "tabulated"] for entry in entries)
    write_atomic(out / TABLE, text.getvalue())
    return len(entries)


def require_unfilled(folder: Path) -> None:
    """Raise ConfigError where a new probe set would destroy latencies, or files that no probe set lists."""
    table = folder / TABLE
    if table.exists():
        try:
            filled = sum(map(len, read_table(table).values()))
        except DeviceError as error:
            raise ConfigError(f"{error}; a new probe set would overwrite it, choose another folder") from error
        if filled:
            raise ConfigError(
                f"{table} holds {filled} row{'s that are' if filled > 1 else ' that is'} filled in, and a new probe "
                "set would empty the table: choose another folder, or import it first with "
                f"`nas device add NAME --table {table}` and move it away"
            )
    if (folder / PROBES).exists():
        try:
            _set_record(folder / PROBES)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{folder / PROBES} cannot be read ({error}), so nobody knows which files beside it are of the earlier "
                "probe set: choose another folder"
            ) from error


def _remove_set(folder: Path) -> None:
    """Remove the model files that `probes.json` lists, and the table, which holds no latency, with its rounds."""
    if (folder / PROBES).exists():
        for entry in _set_record(folder / PROBES)["files"]:
            if Path(entry["file"]).name == entry["file"]:  # a path could lead out of the folder
                (folder / entry["file"]).unlink(missing_ok=True)
    (folder / TABLE).unlink(missing_ok=True)
    (folder / TABLE).with_suffix(".rounds.json").unlink(missing_ok=True)


def _file_name(architecture: Architecture, precision: str) -> str:
    return f"{architecture.key}.{precision}.onnx"


def match_table(table: Table) -> TableMatch:
    """Return how a table fits the probe set beside it.

    Raises:
        DeviceError: There is no probe set beside the table, or the table cannot be read.
    """
    _, record = _read_probes(table)
    listed = {entry["file"] for entry in record["files"]}
    known = read_table(Path(table.path))
    latencies = {name: [latency for latency, _ in rows] for name, rows in known.items() if name in listed}
    return TableMatch(
        files=len(listed),
        filled=len(latencies),
        unknown=tuple(sorted(known.keys() - listed)),
        uneven=tuple(name for name, rows in latencies.items() if _ratio_of_quartiles(rows) > SPREAD),
    )


def _ratio_of_quartiles(rows: Sequence[float]) -> float:
    """Return how far the middle half of the rows is apart; a few disturbed visits, which a median absorbs, are not."""
    lower, upper = np.quantile(rows, [0.25, 0.75])
    return float(upper / lower)


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


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
        other = f" (it names {len(known)} other files, such as {next(iter(known))!r})" if known else ""
        raise DeviceError(
            f"the table {table.path} holds no latency of the files in {beside}{other}; fill in latency_ms"
        )
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
    except PluginError as error:
        raise PluginError(f"{beside}: {error}; give --plugin FILE where a plug-in has it") from error
    except NasError as error:
        raise type(error)(f"{beside}: {error}") from error


def _read_probes(table: Table) -> tuple[Path, dict[str, Any]]:  # Any: JSON values
    """Return the file that says what the probe set beside a table is, and its content."""
    beside = Path(table.path).parent / PROBES
    try:
        return beside, _set_record(beside)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{beside} cannot be read ({error}): a table is imported from the folder that `nas device probe` wrote"
        ) from error


def _set_record(path: Path) -> dict[str, Any]:  # Any: JSON values
    record = dict(json.loads(path.read_text()))
    files = [{**entry, "file": str(entry["file"])} for entry in record["files"]]
    return {**record, "files": files, "quantization": dict(record["quantization"])}


def _space_record(space: SearchSpace) -> Any:  # Any: JSON values
    """Return the space as a run file says it, without its restriction; None for one that is no registered plug-in."""
    whole = space.space if isinstance(space, RestrictedSpace | RestrictedChainSpace) else space
    record = describe(whole)
    return record if isinstance(record, dict) and "type" in record else None
