"""What a network is for: images, labels, classes, how images become inputs, and the metric that counts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1"]
Resize = Literal["stretch", "crop", "letterbox"]
Color = Literal["rgb", "bgr", "grey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input; written into every exported file.

    Attributes:
        height: Of the input in pixels.
        width: Of the input in pixels.
        color: Order of the channels; "grey" has one.
        resize: "stretch" ignores the aspect ratio; "crop" scales the shorter side and cuts the middle out;
            "letterbox" scales the longer side and pads with zeros, the image in the middle.
        mean: Subtracted from every pixel of a channel, in units of raw pixels (0 to 255).
        std: What the difference is divided by, in the same units.
    """

    height: int
    width: int
    color: Color = "rgb"
    resize: Resize = "stretch"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"{self.color} needs {self.channels} means and stds, got {self.mean=}, {self.std=}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.color == "grey" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, self.height, self.width)

    def normalize(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return raw pixels `n x height x width x channels` as network inputs `n x channels x height x width`."""
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        scaled = (images_NHWC.astype(np.float32) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images as raw pixels `n x height x width x channels` (uint8) and their labels `n` (int64)."""

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise ValueError(
                f"split {self.name!r} needs n x height x width x channels images and n labels, "
                f"got {self.images.shape} and {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One classification task.

    Training reads `train`; search and gates read `validation`; int8 ranges come from `calibration`, which is part
    of the training images; the test split is behind `open_test`, which only the report calls.

    Attributes:
        name: For reports.
        classes: Class names, in the order of the labels.
        preprocessing: How images become inputs.
        train: Training images.
        validation: Selection and gates.
        calibration: Some training images without augmentation, for int8 ranges.
        open_test: Reads the test split; called once, by the report.
        metric: What search, gates and report maximize.
        balance: How unequal classes are trained: not at all, by weights in the loss, or by a balanced sampler.
        augment: Names of the augmentations training may use.
        data_hash: Hash of all images, labels and options that made them.
        notes: Sentences about the data for the report: corrupt files, duplicates across splits, ...
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    train: Split
    validation: Split
    calibration: Split
    open_test: Callable[[], Split]
    metric: MetricName = "accuracy"
    balance: Literal["none", "class_weights", "sampler"] = "none"
    augment: tuple[str, ...] = ()
    data_hash: str = ""
    notes: tuple[str, ...] = field(default=())

    def replace(self, **changes: object) -> "Task":
        """Return a task with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]
