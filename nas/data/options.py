"""How a source's images become a task: the options every source shares."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from nas.task import Balance, Color, Interpolation, MetricName, Preprocessing, Resize

Normalize = Literal["fixed", "train"]
Duplicates = Literal["warn", "drop", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Options of a task, whatever its source; a run's `[data]` table.

    Attributes:
        height: Of the network's input in pixels.
        width: Of the network's input in pixels.
        color: Order of the channels; "grey" has one.
        resize: How another aspect ratio is met, see `nas.task.Preprocessing`.
        interpolation: How pixels are averaged when an image is scaled.
        fill: Grey level under transparent pixels and around a letterboxed image, 0 to 255.
        bits: Significant bits of grey images stored with 16 bits a pixel.
        normalize: "fixed" maps pixel p to (p - 128) / 128 in every channel, which int8 represents exactly, so
            a device feeds its raw pixels to the first tensor. "train" takes mean and standard deviation of
            every channel over the training images: three scales no single int8 tensor holds, so the first
            tensor is rescaled.
        metric: What search, gates and report maximize.
        balance: How training treats unequal classes: not at all, by weights in the loss, or by a balanced
            sampler.
        augment: Names of the augmentations training may use; none unless named, since flips break digits and
            text.
        validation: Share of the training images that becomes the validation split where the source has none.
        test: Share of the training images that becomes the test split where the source has none.
        split_seed: Which images those are, and the order of the images in every split.
        group_pattern: Regular expression searched in every image's name where the source has no groups of its
            own. Images with the same match (of the first parenthesis, if there is one) stay on one side of a
            split we make.
        calibration_images: Training images that int8 ranges are taken from.
        max_corrupt: Share of unreadable images above which the data are refused.
        duplicates: What to do about identical images in two splits: name them ("warn"), take them out of the
            split that is trained on or selected by ("drop"), or refuse ("error"). The last two read the test
            images too.
        limit: Most images of a split, for quick runs; classes keep their shares. None: all of them.
    """

    height: int
    width: int
    color: Color = "rgb"
    resize: Resize = "stretch"
    interpolation: Interpolation = "bilinear"
    fill: int = 0
    bits: int = 16
    normalize: Normalize = "fixed"
    metric: MetricName = "accuracy"
    balance: Balance = "none"
    augment: tuple[str, ...] = ()
    validation: float = 0.15
    test: float = 0.15
    split_seed: int = 0
    group_pattern: str = ""
    calibration_images: int = 256
    max_corrupt: float = 0.01
    duplicates: Duplicates = "warn"
    limit: int | None = None

    # Read by pydantic when a run file is parsed; without it unknown keys would be dropped in silence.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}  # Any: pydantic's own

    def __post_init__(self) -> None:
        for name, allowed in _NAMED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("validation", "test"):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise ValueError(f"{name} is a share of the training images between 0 and 1, got {share}")
        if self.validation + self.test >= 1:
            raise ValueError(f"{self.validation=} and {self.test=} leave nothing to train on")
        if not 0 <= self.max_corrupt < 1:
            raise ValueError(f"max_corrupt is a share from 0 up to, not including, 1, got {self.max_corrupt}")
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images must be at least 1, got {self.calibration_images}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 image, got {self.limit}")
        try:
            re.compile(self.group_pattern)
        except re.error as error:
            raise ValueError(f"group_pattern {self.group_pattern!r} is no regular expression: {error}") from error
        self.preprocessing()

    def preprocessing(self) -> Preprocessing:
        """Return how images become inputs, with the fixed normalization."""
        return Preprocessing(
            height=self.height,
            width=self.width,
            color=self.color,
            resize=self.resize,
            interpolation=self.interpolation,
            fill=self.fill,
            bits=self.bits,
        )


_NAMED: dict[str, tuple[str, ...]] = {
    "color": get_args(Color),
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "normalize": get_args(Normalize),
    "metric": get_args(MetricName),
    "balance": get_args(Balance),
    "duplicates": get_args(Duplicates),
}
