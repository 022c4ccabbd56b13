"""A device of which only the memory is known: no timing, so networks are compared by counted MACs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from latency_models.timing import BACKENDS, Timing
from search_spaces.errors import MeasurementError


@BACKENDS.register("memory")
@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Times nothing: arena and flash of the device are limits, and MACs stand where milliseconds would.

    A run takes the same road as with a timed device, less the probing. MACs are printed as counted and never turned
    into milliseconds: on a microcontroller their order is that of latency only roughly (Kendall's tau 0.87 over 14
    networks, measured in instructions).
    """

    live: ClassVar[bool] = False

    def fingerprint(self) -> Mapping[str, str]:
        """Return that there is nothing to measure."""
        return {"backend": "memory"}

    def measure(
        self,
        artefacts: Sequence[Path],
        reference: Path,
        *,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Sequence[Timing]:
        """Raise MeasurementError: there is no clock."""
        raise MeasurementError(
            f"{artefacts[0].name if artefacts else reference.name} cannot be timed: the backend is of type memory; "
            "use local, ssh, command or table for a device with timing"
        )
