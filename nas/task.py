"""What a network is for: images, labels, classes, how images become inputs, and the metric that counts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1"]
Balance = Literal["none", "class_weights", "sampler"]
Resize = Literal["stretch", "crop", "letterbox"]
Interpolation = Literal["bilinear", "bicubic", "box", "nearest"]
Color = Literal["rgb", "bgr", "grey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input; written into every exported file.

    Attributes:
        height: Of the input in pixels.
        width: Of the input in pixels.
        color: Order of the channels; "grey" has one.
        resize: "stretch" ignores the aspect ratio; "crop" cuts the largest middle part of the input's aspect
            ratio out and scales it; "letterbox" scales the whole image into the input and fills the rest, the
            image in the middle.
        interpolation: Pillow's filter of that name; all but "nearest" average over what is scaled down.
        fill: Grey level under transparent pixels and around a letterboxed image.
        bits: Significant bits of grey images stored with 16 bits a pixel, of which the top 8 are kept: 16, or
            what the sensor gives (10, 12, 14).
        mean: Subtracted from every pixel of a channel, in units of raw pixels (0 to 255). Empty: 128 for
            each.
        std: What the difference is divided by, in the same units. Empty: 128 for each.

    With the default, pixel p becomes (p - 128) / 128: an exact grid of step 1/128 whose zero point is a
    level, so the first int8 tensor holds p itself. With 127.5 the zero point lies between two levels, and
    rounding half to even maps two neighbouring levels on one.
    """

    height: int
    width: int
    color: Color = "rgb"
    resize: Resize = "stretch"
    interpolation: Interpolation = "bilinear"
    fill: int = 0
    bits: int = 16
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if not getattr(self, name):
                object.__setattr__(self, name, (128.0,) * self.channels)
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"{self.color} needs {self.channels} means and stds, got {self.mean=}, {self.std=}")
        if min(self.std) <= 0:
            raise ValueError(f"every std must be positive, got {self.std=}")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an input has at least one pixel a side, got {self.height=}, {self.width=}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill is a grey level from 0 to 255, got {self.fill=}")
        if not 8 <= self.bits <= 16:
            raise ValueError(f"bits of a 16-bit image must be 8 to 16, got {self.bits=}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.color == "grey" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, self.height, self.width)

    def normalize(self, images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return pixels `n x height x width x channels` as inputs `n x channels x height x width`."""
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        scaled = (images_NHWC.astype(np.float32) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images as raw pixels `n x height x width x channels` (uint8) and their labels `n` (int64).

    The images may be mapped from a file that other processes share, and are read-only then; their order is
    random (seeded), so that any first n of them are a fair sample. `notes` are sentences known only once the
    split was read.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

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

    Training reads `train`; search and gates read `validation`; int8 ranges come from `calibration`, which is
    part of the training images; the test split is behind `open_test`, which only the report calls.

    Attributes:
        name: For reports.
        classes: Class names, in the order of the labels.
        preprocessing: How images become inputs.
        train: Training images.
        validation: Selection and gates.
        calibration: Some training images without augmentation, for int8 ranges.
        open_test: Reads the test split; called once, by the report.
        metric: What search, gates and report maximize.
        balance: How unequal classes are trained: not at all, by weights in the loss, or by a balanced
            sampler.
        augment: Names of the augmentations training may use.
        data_hash: Hash of all images, labels, classes and the preprocessing.
        notes: Sentences about the data for the report: corrupt files, duplicates across splits, ...
        resized: Makes the same task, with the same images in the same splits, at another height and width.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    train: Split
    validation: Split
    calibration: Split
    open_test: Callable[[], Split]
    metric: MetricName = "accuracy"
    balance: Balance = "none"
    augment: tuple[str, ...] = ()
    data_hash: str = ""
    notes: tuple[str, ...] = field(default=())
    resized: Callable[[int, int], "Task"] | None = None

    def at_size(self, height: int, width: int) -> "Task":
        """Return the task with inputs of another size, decoded from the originals; itself at its own size.

        Raises:
            ValueError: The task was made from arrays and has no originals.
        """
        if (height, width) == (self.preprocessing.height, self.preprocessing.width):
            return self
        if self.resized is None:
            raise ValueError(
                f"task {self.name!r} holds pixels of one size, not {height} x {width}; make it with load_task"
            )
        return self.resized(height, width)

    def replace(self, **changes: object) -> "Task":
        """Return a task with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]
