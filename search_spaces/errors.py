"""The errors of all three packages.

NasError                      exit code 1
├── ConfigError               2   the run file, a flag or their values, a device described wrongly
├── PluginError               2   a plug-in that is unknown, clashes or does not load
├── SpaceError                2   an architecture or search space that cannot be what it says
│   └── LoweringError             an operator outside the vocabulary, or a write we cannot follow
├── InfeasibleError           3   nothing fits the budget
├── GateFailed                4   a compression stage lost more than it may
├── ParityFailed              5   an exported file that does not compute what the network computes
├── DataError                 6   images, labels or splits
├── DeviceError               7   a device that is unknown, unreachable or not as it was described
│   └── MeasurementError          a timing that could not be taken or cannot be trusted
└── RunError                  8   run directory, event log, disk or checkpoint
    └── TrainingDiverged          loss or weights are not finite (nas.train)

Each class exists because somebody catches it: the command line turns it into one sentence and its exit code.
Arguments of a Python call that have the wrong type or value raise TypeError and ValueError as usual.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class NasError(Exception):
    """Base of every error that a user can cause or mend; `exit_code` is what `nas` exits with."""

    exit_code: ClassVar[int] = 1


class ConfigError(NasError):
    """The run file or a flag holds a key or value that cannot be used."""

    exit_code = 2


class PluginError(NasError):
    """A plug-in is unknown, clashes with another or does not load."""

    exit_code = 2


class SpaceError(NasError):
    """An architecture or a search space contradicts itself."""

    exit_code = 2


class LoweringError(SpaceError):
    """A block computes something that the operator vocabulary does not hold."""


class InfeasibleError(NasError):
    """No network of the space, or no exported file, meets the budget."""

    exit_code = 3


class GateFailed(NasError):  # noqa: N818 - the name states the event, as in the log and the report
    """A compression stage lost more of the metric than its gate allows."""

    exit_code = 4


class ParityFailed(NasError):  # noqa: N818
    """An exported file computes something else than the network it was made from."""

    exit_code = 5


class DataError(NasError):
    """Images, labels or splits that cannot be used."""

    exit_code = 6


class DeviceError(NasError):
    """A device that is unknown, unreachable or not as it was described."""

    exit_code = 7


class MeasurementError(DeviceError):
    """A measurement that could not be taken, or whose samples cannot be trusted."""


class RunError(NasError):
    """A run directory, event log or checkpoint that cannot be read or written."""

    exit_code = 8


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown `name`: its near matches, else all that is known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(match) for match in close)}?"
    return f"known: {', '.join(names)}" if names else "none is known"
