"""What a timing is, and the seam behind which it is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from search_spaces.measurement import Measurement, Origin
from search_spaces.registry import Registry

Clock = Literal["thread_cpu", "wall", "device", "table"]
"""Which clock a timing was read from: the calling thread's CPU clock, wall time, the board's own, or a table's."""


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """Raw samples of one artefact, kept as they were taken.

    Attributes:
        name: File name of the artefact.
        visits: Samples of each visit in milliseconds, in the order they were taken.
        clock: Which clock they were read from.
        origin: measured, emulated, estimated or tabulated; never mixed in one fit.
    """

    name: str
    visits: tuple[npt.NDArray[np.float64], ...]
    clock: Clock = "thread_cpu"
    origin: Origin = "measured"

    def __post_init__(self) -> None:
        if not self.visits or any(not len(visit) for visit in self.visits):
            raise ValueError(f"{self.name}: a timing needs at least one sample in every visit")

    @property
    def latency_ms(self) -> float:
        """Median over visits of the smallest sample of each visit.

        The minimum forgets neighbours on a shared machine (bias +0.6 % at load 10, where the mean is off by up to
        12 times); the median over visits forgets a visit that was disturbed throughout.
        """
        return float(np.median([visit.min() for visit in self.visits]))

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of all samples, in milliseconds."""
        return float(np.percentile(np.concatenate(self.visits), percent))

    def measurement(self, *, source: str = "") -> Measurement:
        """Return the latency with the 5 % to 95 % range of its visits' minima."""
        minima = [float(visit.min()) for visit in self.visits]
        lower, upper = np.percentile(minima, [5, 95])
        value = self.latency_ms
        return Measurement(
            value=value,
            unit="ms",
            origin=self.origin,
            lower=min(float(lower), value),
            upper=max(float(upper), value),
            source=source,
        )

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form: every sample, rounded to a nanosecond."""
        return {
            "name": self.name,
            "clock": self.clock,
            "origin": self.origin,
            "visits_ms": [[round(float(sample), 6) for sample in visit] for visit in self.visits],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back."""
        visits = tuple(np.asarray(visit, dtype=np.float64) for visit in record["visits_ms"])
        return cls(record["name"], visits, record["clock"], record["origin"])


class Backend(Protocol):
    """Runs model files on one device and times them.

    Attributes:
        live: Whether it can time any file it is given; a table cannot.
    """

    live: ClassVar[bool]

    def fingerprint(self) -> Mapping[str, str]:
        """Return everything that makes this another device when it changes: CPU, runtime, threads, governor, ..."""
        ...

    def measure(
        self, artefacts: Sequence[Path], reference: Path, *, progress: Callable[[float], None] = ...
    ) -> Sequence[Timing]:
        """Time every artefact, interleaved with `reference`.

        Args:
            artefacts: Model files.
            reference: A model file of middling size, visited again and again to see whether the device is steady.
            progress: Told the share done.

        Raises:
            MeasurementError: A file that the runtime refuses, or timings that never settled.
        """
        ...


BACKENDS: Registry[Backend] = Registry(
    "backend",
    group="embedded_nas.backends",
    builtin=("latency_models.backends.local", "latency_models.backends.table"),
)
