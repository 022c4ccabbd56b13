"""CSV manifests: one row an image, with its label and, where given, split and group."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.data.source import Role
from search_spaces.errors import DataError, near_matches

_COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image file.

    Attributes:
        file: Where it is.
        label: Name of its class.
        name: What messages call the image.
        place: Where its label was found, for messages.
        split: The split it belongs to.
        group: Key of images that stay together; "" for none.
    """

    file: Path
    label: str
    name: str
    place: str
    split: Role
    group: str = ""


def read_manifest(path: Path, root: Path, split_names: Mapping[str, Role]) -> list[Row]:
    """Return the rows of a manifest, in their order.

    The file is UTF-8 (with or without a byte order mark), comma-separated, its first line the column names in
    any order. Blank lines are passed over. Split names are read in any case.

    Args:
        path: The CSV file.
        root: Folder the paths are relative to.
        split_names: What split a name in lower case stands for.

    Raises:
        DataError: The file or a column is missing, or a row cannot be read; the message has its line number.
    """
    rows: list[Row] = []
    lines: dict[Path, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for line, cells in _cells(path, stream):
                row = _row(f"{path} line {line}", cells, root, split_names)
                if row.file in lines:
                    raise DataError(f"{row.place}: {cells['path']!r} is on line {lines[row.file]}, too; list it once")
                lines[row.file] = line
                rows.append(row)
    except FileNotFoundError as error:
        raise DataError(f"manifest {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise DataError(f"manifest {path} is not UTF-8: {error}; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"manifest {path} lists no image")
    _check_files(rows)
    return rows


def _cells(path: Path, stream: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column of every row that is not blank."""
    reader = csv.reader(stream, strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _columns(path, cells)
            elif len(cells) != len(columns):
                raise DataError(
                    f"{path} line {reader.line_num}: {len(cells)} cells, expected {len(columns)} "
                    f"({','.join(columns)}); put cells with commas in quotes"
                )
            else:
                yield reader.line_num, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}") from error


def _columns(path: Path, cells: Sequence[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    for number, name in enumerate(columns):
        if name not in _COLUMNS:
            raise DataError(
                f"{path}: unknown column {cells[number]!r} in the first line; {near_matches(name, _COLUMNS)} "
                "Expected path,label[,split][,group], separated by commas"
            )
    if len(set(columns)) != len(columns) or not {"path", "label"} <= set(columns):
        raise DataError(f"{path}: the first line is {','.join(cells)!r}, expected path,label[,split][,group]")
    return columns


def _row(place: str, cells: Mapping[str, str], root: Path, split_names: Mapping[str, Role]) -> Row:
    for name in ("path", "label"):
        if not cells[name]:
            raise DataError(f"{place}: {name} is empty")
    split = cells.get("split", "").lower()
    if split and split not in split_names:
        raise DataError(f"{place}: unknown split {cells['split']!r}; {near_matches(split, split_names)}")
    return Row(
        file=root / cells["path"],
        label=cells["label"],
        name=cells["path"],
        place=place,
        split=split_names[split] if split else "train",
        group=cells.get("group", ""),
    )


def _check_files(rows: Sequence[Row]) -> None:
    missing = [row for row in rows if not row.file.is_file()]
    if missing:
        first = missing[0]
        raise DataError(
            f"{first.place}: {first.file} is no file"
            + (f", nor are those of {len(missing) - 1} other rows" if len(missing) > 1 else "")
            + "; paths are relative to the folder of the task"
        )
