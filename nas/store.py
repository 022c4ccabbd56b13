"""Candidates as folders: weights, what they are, and what they predict on validation images."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.candidate import Candidate, StageRecord
from nas.run import read_json, write_atomic, write_json
from nas.task import Preprocessing
from nas.train.checkpoint import load_network, save_network
from search_spaces.errors import RunError
from search_spaces.measurement import Measurement
from search_spaces.precision import QuantizationPlan

WEIGHTS = "candidate.safetensors"
FACTS = "candidate.json"


def save_candidate(folder: Path, candidate: Candidate) -> None:
    """Write a candidate into a folder; `candidate.json` is written last, so a folder that has it is whole.

    Raises:
        RunError: The candidate has left the block vocabulary and cannot be written, or the disk refuses.
    """
    if candidate.architecture is None:
        raise RunError("a network that is no architecture any more cannot be kept in a run directory")
    folder.mkdir(parents=True, exist_ok=True)
    save_network(folder / WEIGHTS, candidate.architecture, candidate.module)
    record = {
        "preprocessing": asdict(candidate.preprocessing),
        "quantization": None if candidate.quantization is None else asdict(candidate.quantization),
        "stages": list(candidate.stages),
        "figures": _figures(candidate.figures),
        "notes": list(candidate.notes),
    }
    write_json(folder / FACTS, record)


def load_candidate(folder: Path) -> Candidate:
    """Read a candidate back; raises RunError when it is not there or damaged."""
    record = read_json(folder / FACTS)
    architecture, network, _ = load_network(folder / WEIGHTS)
    try:
        quantization = record["quantization"]
        return Candidate(
            architecture=architecture,
            module=network,
            preprocessing=Preprocessing(**_tuples(record["preprocessing"])),
            quantization=None if quantization is None else QuantizationPlan(**_tuples(quantization)),
            stages=tuple(record["stages"]),
            figures={name: Measurement.from_dict(figure) for name, figure in record["figures"].items()},
            notes=tuple(record["notes"]),
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise RunError(f"{folder / FACTS} is damaged ({error}); remove the folder to have it made again") from error


def save_predictions(path: Path, predictions: npt.NDArray[np.int64]) -> None:
    """Write predicted classes as JSON."""
    write_atomic(path, json.dumps(predictions.tolist(), separators=(",", ":")))


def load_predictions(path: Path) -> npt.NDArray[np.int64]:
    """Read predicted classes back; raises RunError when they are missing or damaged."""
    record = read_json(path)
    if not isinstance(record, list) or not all(type(label) is int for label in record):
        raise RunError(f"{path} is damaged (no list of classes); remove the folder to have it made again")
    return np.asarray(record, dtype=np.int64)


def read_stage_record(path: Path) -> StageRecord:
    """Read a `record.json`; raises RunError when it is damaged."""
    record = read_json(path)
    try:
        figures = {
            name: {key: Measurement.from_dict(figure) for key, figure in record[name].items()}
            for name in ("before", "after", "figures")
        }
        return StageRecord(**{**record, **figures, "notes": tuple(record["notes"])})
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it to have it made again") from error


def _figures(figures: Mapping[str, Measurement]) -> dict[str, Any]:  # Any: JSON values
    return {name: figure.to_dict() for name, figure in figures.items()}


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON values
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
