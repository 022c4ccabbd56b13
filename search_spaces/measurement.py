"""A number with its unit and its origin: the only form in which figures leave the library."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

Origin = Literal["counted", "predicted", "estimated", "emulated", "measured", "tabulated"]
"""How a figure is known.

counted: computed exactly from the network; predicted: by a model fitted to a device's measurements;
estimated: by a model that never saw the device; emulated: run on an emulator; measured: run on the device;
tabulated: read from a table of somebody else's measurements.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A value, its unit, how it is known, and the interval it lies in.

    Attributes:
        value: The figure itself, finite.
        unit: Such as "ms", "bytes", "MAC", "1" for a share.
        origin: How the figure is known.
        lower: Lower end of the interval at `level`, or None where no spread is known.
        upper: Upper end of the same interval.
        level: Probability of that interval.
        source: Which file, device or split the figure comes from, in words.
    """

    value: float
    unit: str
    origin: Origin
    lower: float | None = None
    upper: float | None = None
    level: float = 0.9
    source: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a measurement must be finite, got {self.value=} {self.unit}")
        if self.origin not in get_args(Origin):
            raise ValueError(f"origin must be one of {get_args(Origin)}, got {self.origin!r}")
        if (self.lower is None) != (self.upper is None):
            raise ValueError(f"an interval has two ends, got {self.lower=} and {self.upper=}")
        if self.lower is not None and self.upper is not None and not self.lower <= self.value <= self.upper:
            raise ValueError(f"{self.value=} must lie within [{self.lower}, {self.upper}]")

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form, without the fields that say nothing."""
        record: dict[str, Any] = {"value": self.value, "unit": self.unit, "origin": self.origin}
        if self.lower is not None:
            record |= {"lower": self.lower, "upper": self.upper, "level": self.level}
        if self.source:
            record["source"] = self.source
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read the JSON form back; raises TypeError on an unknown field."""
        return cls(**record)

    def __str__(self) -> str:
        interval = "" if self.lower is None else f" [{self.lower:.4g}, {self.upper:.4g}]"
        return f"{self.value:.4g}{interval} {self.unit} ({self.origin})"
