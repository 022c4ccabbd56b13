"""Why a device gave no timing: the kinds a caller treats differently.

MeasurementError
├── ConnectionLost          the device went away; the same request may succeed later
├── FileFailure             one file gave no timing, whatever becomes of the others
│   ├── TimedOut            the device answered too late; the network may be slow, or the device hangs
│   ├── OutOfMemory         the network does not fit: infeasible on this device
│   ├── UnsupportedOperator the runtime lacks an operator, an opset or an IR version: infeasible in this form
│   └── RefusedFile         the runtime refuses the file for another reason: the file is wrong
└── PartlyMeasured          some files of a measurement failed so; it holds the timings of the others
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from latency_models.timing import Timing
from search_spaces.errors import MeasurementError


class ConnectionLost(MeasurementError):  # noqa: N818 - the name states the event
    """The device went away.

    Attributes:
        file: Name of the file it was about then; empty where it was about none.
    """

    def __init__(self, message: str, *, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class FileFailure(MeasurementError):  # noqa: N818 - an outcome before it is an error
    """A file that gave no timing: raised, or one of the outcomes of a measurement.

    Attributes:
        kind: What it is called in a profile and by a board.
        file: Name of the file; empty where the device cannot tell which of several it was.
    """

    kind: ClassVar[str] = "refused"

    def __init__(self, message: str, *, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class TimedOut(FileFailure):
    """The device answered too late."""

    kind = "time_out"


class OutOfMemory(FileFailure):
    """A file needs more memory than the device has."""

    kind = "out_of_memory"


class UnsupportedOperator(FileFailure):
    """The device's runtime lacks an operator, an opset or an IR version that a file needs."""

    kind = "unsupported"


class RefusedFile(FileFailure):
    """The device's runtime refuses a file."""


FAILURES: Mapping[str, type[FileFailure]] = {
    known.kind: known for known in (TimedOut, OutOfMemory, UnsupportedOperator, RefusedFile)
}
"""The kinds of failure of a file by what they are called."""

Outcome = Timing | FileFailure
"""What a measurement found of one file."""


class PartlyMeasured(MeasurementError):  # noqa: N818 - the name states the event
    """Some files of a measurement failed; whoever can do without them goes on with the others.

    Attributes:
        outcomes: Of every file, in the order given: its timing, or why there is none.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        failures = [outcome for outcome in outcomes if isinstance(outcome, FileFailure)]
        first = f", the first: {failures[0]}" if len(failures) > 1 else f": {failures[0]}"
        super().__init__(f"{len(failures)} of {len(outcomes)} files gave no timing{first}")
        self.outcomes = tuple(outcomes)


def all_timed(outcomes: Sequence[Outcome]) -> list[Timing]:
    """Return the timings of a measurement in which every file has one.

    Args:
        outcomes: Of every file, in order.

    Raises:
        FileFailure: No file has one; of the kind of the first.
        PartlyMeasured: Some files have none.
    """
    timings = [outcome for outcome in outcomes if isinstance(outcome, Timing)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, FileFailure)]
    if not failures:
        return timings
    if timings:
        raise PartlyMeasured(outcomes)
    first = failures[0]
    if len(failures) == 1:
        raise first
    raise type(first)(f"none of {len(failures)} files gave a timing, the first: {first}", file=first.file) from first


def failure(kind: str, file: str, message: str, *, device: str) -> FileFailure:
    """Return the error for a kind of failure that a device reports.

    Args:
        kind: "out_of_memory", "unsupported" or anything else for a refusal.
        file: Name of the file it is about; may be empty.
        message: What the runtime said.
        device: Where, in words.
    """
    about = file or "a file"
    if kind == OutOfMemory.kind:
        return OutOfMemory(
            f"{about} needs more memory than {device} has: {message}; give the device its `ram`, so that the search "
            "leaves such networks out",
            file=file,
        )
    if kind == UnsupportedOperator.kind:
        return UnsupportedOperator(
            f"the runtime of {device} lacks what {about} needs: {message}; give the device `allow_ops`, `opset` or "
            "`ir_version`, so that no such file is written",
            file=file,
        )
    return RefusedFile(f"the runtime of {device} refuses {about}: {message}", file=file)
