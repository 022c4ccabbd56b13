"""What a timing is, and the seam behind which it is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

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
        levels: Of each visit's round, what the reference network took there over its median in the session; empty
            where there was no reference.
    """

    name: str
    visits: tuple[npt.NDArray[np.float64], ...]
    clock: Clock = "thread_cpu"
    origin: Origin = "measured"
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.visits or any(not len(visit) for visit in self.visits):
            raise ValueError(f"{self.name}: a timing needs at least one sample in every visit")
        if self.levels and (len(self.levels) != len(self.visits) or not all(0 < level < 1e9 for level in self.levels)):
            raise ValueError(f"{self.name}: expected one level above 0 for each of {len(self.visits)} visits")

    @property
    def minima_ms(self) -> npt.NDArray[np.float64]:
        """The smallest sample of every visit, at the session's level: divided by how slow its round was."""
        minima = np.array([visit.min() for visit in self.visits])
        return minima / np.array(self.levels) if self.levels else minima

    @property
    def latency_ms(self) -> float:
        """Median over visits of the smallest sample of each visit.

        The minimum forgets neighbours on a shared machine (bias +0.6 % at load 10, where the mean is off by up to
        12 times); the reference takes out what slows a whole round, such as a busy sibling of the core; the median
        over visits forgets a visit that was disturbed throughout.
        """
        return float(np.median(self.minima_ms))

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of all samples, in milliseconds."""
        return float(np.percentile(np.concatenate(self.visits), percent))

    def measurement(self, *, source: str = "") -> Measurement:
        """Return the latency with the 5 % to 95 % range of its visits' minima."""
        lower, upper = np.percentile(self.minima_ms, [5, 95])
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
            "levels": [round(level, 6) for level in self.levels],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back."""
        visits = tuple(np.asarray(visit, dtype=np.float64) for visit in record["visits_ms"])
        return cls(record["name"], visits, record["clock"], record["origin"], tuple(record.get("levels", ())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """A long run without a pause, as a camera causes it; wall times.

    Attributes:
        seconds: How long it took.
        runs: Inferences.
        p50_ms: Median over all of them.
        p95_ms: Their 95th percentile.
        p99_ms: Their 99th percentile.
        first_ms: Median of the first tenth.
        last_ms: Median of the last tenth; above `first_ms` the device got slower with heat or boost time used up.
        points: One record a second: elapsed_s and p50_ms, and, where the system shows them, temperature_c,
            frequency_mhz and throttled.
    """

    seconds: float
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    first_ms: float
    last_ms: float
    points: tuple[Mapping[str, Any], ...]  # Any: JSON values

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read what the timing script answers."""
        return cls(**{**record, "points": tuple(record["points"])})

    @property
    def slowdown(self) -> float:
        """By what share the last tenth was slower than the first."""
        return self.last_ms / self.first_ms - 1.0

    def sentence(self) -> str:
        """Return what happened in one sentence, with what the system shows of heat and clock."""
        told = f"{self.runs} runs in {self.seconds:.0f} s: p50 {self.first_ms:.4g} -> {self.last_ms:.4g} ms"
        temperatures = [point["temperature_c"] for point in self.points if "temperature_c" in point]
        clocks = [point["frequency_mhz"] for point in self.points if "frequency_mhz" in point]
        flags = {str(point["throttled"]) for point in self.points if "throttled" in point}
        told += f", {temperatures[0]:.0f} -> {max(temperatures):.0f} degrees C" if temperatures else ""
        told += f", {min(clocks)}-{max(clocks)} MHz" if clocks else ""
        told += f", throttle flags {', '.join(sorted(flags))}" if flags else ""
        hidden = not (temperatures or clocks or flags)
        return told + (" (the system shows no temperature, clock or throttle flag)" if hidden else "")


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

        A file that the device refuses, lacks the memory for or does not finish in time costs its own timing and no
        other: the rest is timed to the end. So a back end collects an outcome for every file and ends with
        `failures.all_timed(outcomes)`. A caller that needs every timing just calls this; one that can do without some
        catches `PartlyMeasured`.

        Args:
            artefacts: Model files.
            reference: A model file of middling size, visited again and again to see whether the device is steady.
            progress: Told the share done.

        Returns:
            The timings of all artefacts, in their order.

        Raises:
            PartlyMeasured: Some artefacts gave no timing; it holds those of the others.
            FileFailure: The reference gave none, or no artefact did: TimedOut, OutOfMemory, UnsupportedOperator or
                RefusedFile, with the file's name.
            ConnectionLost: The device went away and stayed away.
            MeasurementError: Timings that never settled.
        """
        ...


@runtime_checkable
class WallClock(Protocol):
    """A back end that can also say what an application would see: wall times of single inferences."""

    @property
    def sustained_s(self) -> float:
        """Length of the sustained run that reports ask for; 0 for none."""
        ...

    def distribution(self, artefact: Path, *, runs: int = ...) -> Timing:
        """Return wall-clock samples of single inferences at batch 1, one after the other."""
        ...

    def sustained(self, artefact: Path, *, seconds: float) -> Sustained:
        """Run without a pause for `seconds`."""
        ...


@runtime_checkable
class RunsFiles(Protocol):
    """A back end whose device is another machine and can be given inputs: its outputs are compared with the host's."""

    @property
    def runs_files(self) -> bool:
        """Whether its runtime takes inputs and gives outputs; a program that only prints latencies does not."""
        ...

    def outputs(self, artefact: Path, inputs: npt.NDArray[Any], *, batch: int) -> npt.NDArray[np.float32]:
        """Return the first output of a file for `inputs`, run `batch` at a time on the device."""
        ...


BACKENDS: Registry[Backend] = Registry(
    "backend",
    group="embedded_nas.backends",
    builtin=(
        "latency_models.backends.command",
        "latency_models.backends.local",
        "latency_models.backends.memory",
        "latency_models.backends.ssh",
        "latency_models.backends.table",
    ),
)
