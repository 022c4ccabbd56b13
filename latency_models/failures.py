"""Why a device gave no timing: the kinds a caller treats differently.

MeasurementError
├── TimedOut            the device answered too late; the network may be slow, or the device hangs
├── ConnectionLost      the device went away; the same request may succeed later
├── OutOfMemory         the network does not fit: infeasible on this device
├── UnsupportedOperator the runtime lacks an operator, an opset or an IR version: infeasible in this form
└── RefusedFile         the runtime refuses the file for another reason: the file is wrong
"""

from search_spaces.errors import MeasurementError


class _AboutFile(MeasurementError):  # noqa: N818
    """A failure that may be about one file.

    Attributes:
        file: Name of the file; empty where it is about none.
    """

    def __init__(self, message: str, *, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class TimedOut(_AboutFile):
    """The device answered too late."""


class ConnectionLost(_AboutFile):
    """The device went away."""


class OutOfMemory(_AboutFile):
    """A file needs more memory than the device has."""


class UnsupportedOperator(_AboutFile):
    """The device's runtime lacks an operator, an opset or an IR version that a file needs."""


class RefusedFile(_AboutFile):
    """The device's runtime refuses a file."""


def failure(kind: str, file: str, message: str, *, device: str) -> MeasurementError:
    """Return the error for a kind of failure that a device reports.

    Args:
        kind: "out_of_memory", "unsupported" or anything else for a refusal.
        file: Name of the file it is about; may be empty.
        message: What the runtime said.
        device: Where, in words.
    """
    about = file or "a file"
    if kind == "out_of_memory":
        return OutOfMemory(
            f"{about} needs more memory than {device} has: {message}; give the device its `ram`, so that the search "
            "leaves such networks out",
            file=file,
        )
    if kind == "unsupported":
        return UnsupportedOperator(
            f"the runtime of {device} lacks what {about} needs: {message}; give the device `allow_ops`, `opset` or "
            "`ir_version`, so that no such file is written",
            file=file,
        )
    return RefusedFile(f"the runtime of {device} refuses {about}: {message}", file=file)
