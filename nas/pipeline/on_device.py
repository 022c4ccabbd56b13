"""Whether a delivered file computes on the device what it computes here."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from latency_models.backends.local import open_session
from latency_models.timing import Backend, RunsFiles
from nas.candidate import ExportedFile, OnDevice
from nas.export import read_exported
from nas.export.manifest import write_parities
from nas.export.metadata import Contract
from nas.export.running import feed, run_session
from nas.task import Split
from search_spaces.errors import ParityFailed

IMAGES = 256
"""Validation images that are run on the device; the first ones, so that every check sees the same."""
LEAST_AGREEMENT = 0.99
"""Least share of them on which the device must name the class that the host names."""


def check_on_device(folder: Path, backend: Backend, split: Split, *, device: str, images: int = IMAGES) -> None:
    """Run an export's files on the device and write agreement and accuracy into `parity.json`.

    Nothing happens where the device is this machine or cannot be given inputs.

    Args:
        folder: An export folder.
        backend: How the device is reached.
        split: Validation images at the size the files take.
        device: Its name.
        images: How many to run.

    Raises:
        MeasurementError: The device is away, or refuses a file.
    """
    if not isinstance(backend, RunsFiles) or not backend.runs_files:
        return
    files = [_checked(file, backend, split, device, images) for file in read_exported(folder).files]
    write_parities(folder, files)


def require_on_device(folder: Path) -> None:
    """Raise ParityFailed when a file that was run on the device does not compute there what it computes here."""
    for file in read_exported(folder).files:
        known = file.parity.on_device
        if known is not None and known.agreement < LEAST_AGREEMENT:
            raise ParityFailed(f"{file.path.name}: {file.parity.reason}; files left in {folder}")


def _checked(file: ExportedFile, backend: RunsFiles, split: Split, device: str, images: int) -> ExportedFile:
    if file.parity.on_device is not None:
        return file
    shown, labels = np.asarray(split.images[:images]), split.labels[:images]
    session = open_session(file.path)
    contract = Contract.of(session.get_modelmeta().custom_metadata_map, file.path)
    here = run_session(session, contract, shown)
    there = backend.outputs(file.path, feed(contract, shown), batch=contract.form.batch or 1)
    found = OnDevice(
        device=device,
        images=len(shown),
        agreement=float((here.argmax(1) == there.argmax(1)).mean()),
        accuracy=float((there.argmax(1) == labels).mean()),
        accuracy_here=float((here.argmax(1) == labels).mean()),
        max_abs_difference=float(np.abs(here - there).max()),
    )
    passed = found.agreement >= LEAST_AGREEMENT
    return replace(
        file,
        parity=replace(
            file.parity,
            passed=file.parity.passed and passed,
            reason=f"{file.parity.reason}; {found.sentence()}",
            on_device=found,
        ),
    )
