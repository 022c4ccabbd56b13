"""A CSV of latencies measured, or estimated, elsewhere."""

import csv
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np

from latency_models.timing import BACKENDS, Timing
from search_spaces.errors import DeviceError, MeasurementError
from search_spaces.measurement import Origin

COLUMNS = ("file", "latency_ms")
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?")
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@BACKENDS.register("table")
@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Looks latencies up in a CSV with the columns `file` and `latency_ms`, and optionally `origin`.

    `nas device probe --out FOLDER` writes the files and an empty table; carry them to the board, time them with
    any tool, fill the column in. Several rows of one file are several samples of it.

    Attributes:
        path: The CSV.
    """

    path: str = field(metadata={"path": True})

    live: ClassVar[bool] = False

    def fingerprint(self) -> Mapping[str, str]:
        """Return the content of the table: an edited table is another device."""
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise DeviceError(f"the table {self.path} cannot be read: {error.strerror or error}") from error
        return {"backend": "table", "sha256": hashlib.sha256(content).hexdigest()}

    def measure(
        self,
        artefacts: Sequence[Path],
        reference: Path,
        *,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Sequence[Timing]:
        """Return the table's rows for these files; raises MeasurementError for files it does not list."""
        rows = read_table(Path(self.path))
        missing = [path.name for path in artefacts if path.name not in rows]
        if missing:
            raise MeasurementError(
                f"the table {self.path} lists no latency for {missing[0]}"
                + (f" and {len(missing) - 1} other files" if len(missing) > 1 else "")
                + "; `nas device probe` writes the files to time and the table to fill in"
            )
        progress(1.0)
        return [
            Timing(
                path.name, tuple(np.array([sample]) for sample, _ in rows[path.name]), "table", rows[path.name][0][1]
            )
            for path in artefacts
        ]


def read_table(path: Path) -> dict[str, list[tuple[float, Origin]]]:
    """Return latencies in milliseconds and their origin by file name; rows without a latency are left out.

    Raises:
        DeviceError: The file is missing, lacks a column, or a row holds no positive number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
            reader = csv.DictReader(file)
            lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise DeviceError(
                    f"the table {path} needs the columns {', '.join(COLUMNS)}; {lacking[0]!r} is missing"
                    + _delimiter_hint(reader.fieldnames or ())
                )
            rows: dict[str, list[tuple[float, Origin]]] = {}
            for row in reader:
                text = (row["latency_ms"] or "").strip()
                if None in row:
                    raise DeviceError(
                        f"the table {path} line {reader.line_num} has more cells than there are columns; a decimal "
                        "comma splits a number in two, write 0.165 for 0,165"
                    )
                if text:
                    origin = _origin(path, reader.line_num, row.get("origin"))
                    known = rows.setdefault(row["file"], [])
                    known.append((_latency(path, reader.line_num, text), origin))
                    if origin != known[0][1]:
                        raise DeviceError(
                            f"the table {path} line {reader.line_num}: {row['file']} is {origin} here and "
                            f"{known[0][1]} before; samples of one file have one origin"
                        )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DeviceError(f"the table {path} cannot be read: {error}") from error
    return rows


def _latency(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DeviceError(
            f"the table {path} line {line}: latency_ms {text!r} is not a number{_number_hint(text)}"
        ) from None
    if not 0.0 < value < float("inf"):
        raise DeviceError(f"the table {path} line {line}: latency_ms must be above 0 milliseconds, got {text!r}")
    return value


def _number_hint(text: str) -> str:
    """Return what is to be done about a latency that is no number; empty where nobody can tell."""
    number, unit = _NUMBER.match(text), _NUMBER.sub("", text, count=1).strip()
    if number is None:
        return ""
    hint = f"; write a decimal point, {number[0].replace(',', '.')}" if "," in number[0] else ""
    return hint + (f"; the column is in milliseconds, leave out {unit!r} and convert to them" if unit else "")


def _delimiter_hint(columns: Sequence[str]) -> str:
    for delimiter, name in _DELIMITERS.items():
        if set(COLUMNS) <= {cell.strip() for column in columns for cell in column.split(delimiter)}:
            return f": its cells are separated by {name} ({delimiter!r}), save it with commas"
    return ""


def _origin(path: Path, line: int, text: str | None) -> Origin:
    name = (text or "").strip() or "tabulated"
    for origin in get_args(Origin):
        if name == origin:
            known: Origin = origin
            return known
    hint = "; a decimal comma splits a number in two, write 0.165 for 0,165" if name.isdigit() else ""
    raise DeviceError(
        f"the table {path} line {line}: origin must be one of {', '.join(get_args(Origin))}, got {name!r}{hint}"
    )
