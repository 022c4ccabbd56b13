"""What a file says about itself, so that whoever has it alone can feed it and name its answers.

Every value under `metadata_props` is JSON; `manifest.json` holds the same record. Format 1:

    format, task, data_hash, classes (in the order of the logits), metric
    input         name, dtype, layout, batch (null: any), height, width, color
    output        name
    resize        rule, interpolation, fill, bits, how (in words)
    normalization inside (whether the file does it), mean, std, in units of pixels 0 to 255
    decoding      sentences: how an image file becomes pixels before it is scaled
    architecture  JSON of the network as a value, or null; architecture_key; stages that were applied
    precision     float32 or int8; quantization: the plan, or null
    tools         versions of what made it
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import onnx

from nas.candidate import Candidate
from nas.export.preprocessing import InputForm
from nas.run import environment
from nas.task import Preprocessing, Task
from search_spaces.errors import RunError
from search_spaces.precision import Precision, QuantizationPlan

FORMAT = 1

Record = dict[str, Any]  # Any: JSON values

RESIZING = {
    "stretch": "Scale the image to width x height, whatever its aspect ratio.",
    "crop": (
        "Cut out the largest part with the aspect ratio of width x height, its missing side rounded to the nearest "
        "pixel (halves up), in the middle (left and top offsets rounded down); scale it to width x height."
    ),
    "letterbox": (
        "Scale the whole image to the largest size that fits into width x height, its shorter side rounded to the "
        "nearest pixel (halves up); paste it in the middle (left and top offsets rounded down) of an image of grey "
        "level fill."
    ),
}
"""What the resize rules do; `nas/data/resize.py` is the same in Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What one must know to run a file.

    Attributes:
        form: How it takes images.
        preprocessing: Size, color and normalization of them.
        classes: Names in the order of the logits.
    """

    form: InputForm
    preprocessing: Preprocessing
    classes: tuple[str, ...]

    @classmethod
    def of(cls, texts: Mapping[str, str], path: Path) -> Self:
        """Read the metadata of a file; raises RunError where they are not of this format."""
        try:
            record = read(texts)
            given, resize, normalization = record["input"], record["resize"], record["normalization"]
            return cls(
                form=InputForm(dtype=given["dtype"], layout=given["layout"], batch=given["batch"]),
                preprocessing=Preprocessing(
                    height=given["height"],
                    width=given["width"],
                    color=given["color"],
                    resize=resize["rule"],
                    interpolation=resize["interpolation"],
                    fill=resize["fill"],
                    bits=resize["bits"],
                    mean=tuple(normalization["mean"]),
                    std=tuple(normalization["std"]),
                ),
                classes=tuple(record["classes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path.name} holds no metadata of format {FORMAT} ({error!r}); export the network again"
            ) from error


def describe(candidate: Candidate, task: Task, form: InputForm, *, decoding: tuple[str, ...]) -> Record:
    """Return the record that all files of a candidate share."""
    preprocessing, architecture = candidate.preprocessing, candidate.architecture
    return {
        "format": FORMAT,
        "task": task.name,
        "data_hash": task.data_hash,
        "metric": task.metric,
        "classes": list(task.classes),
        "input": {
            "name": "image",
            "dtype": form.dtype,
            "layout": form.layout,
            "batch": form.batch,
            "height": preprocessing.height,
            "width": preprocessing.width,
            "color": preprocessing.color,
        },
        "output": {"name": "logits"},
        "resize": {
            "rule": preprocessing.resize,
            "interpolation": preprocessing.interpolation,
            "fill": preprocessing.fill,
            "bits": preprocessing.bits,
            "how": RESIZING[preprocessing.resize],
        },
        "normalization": {
            "inside": form.dtype == "uint8",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "decoding": list(decoding),
        "architecture": architecture.to_dict() if architecture is not None else None,
        "architecture_key": architecture.key if architecture is not None else None,
        "stages": list(candidate.stages),
        "tools": environment(),
    }


def of_file(shared: Mapping[str, Any], precision: Precision, quantization: Record | None) -> Record:  # Any: JSON
    """Return the record of one file; `quantization` is the plan of an 8-bit one, see `plan_record`.

    Quantization changes no weight of the float file beside the 8-bit one, so it is none of that file's stages.
    """
    stages = [stage for stage in shared["stages"] if precision == "int8" or stage != "quantize"]
    return {**shared, "stages": stages, "precision": precision, "quantization": quantization}


def plan_record(plan: QuantizationPlan | None) -> Record | None:
    """Return the JSON form of a plan."""
    return None if plan is None else {**dataclasses.asdict(plan), "keep_float": list(plan.keep_float)}


def embed(model: onnx.ModelProto, record: Mapping[str, Any]) -> None:  # Any: JSON values
    """Write a record into a model, in place, and name this package as its producer."""
    model.producer_name = "embedded-nas"
    model.producer_version = record["tools"].get("embedded-nas", "")
    del model.metadata_props[:]
    for key, value in record.items():
        model.metadata_props.add(key=key, value=json.dumps(value, sort_keys=True))


def read(texts: Mapping[str, str]) -> Record:
    """Return the record from the texts in a file.

    Raises:
        ValueError: They are of another format, or no JSON.
    """
    if json.loads(texts.get("format", "null")) != FORMAT:
        raise ValueError(f"format {texts.get('format')!r}")
    return {key: json.loads(text) for key, text in texts.items()}
