"""The program `nas`: its commands, and what becomes of an error."""

import errno
import os
import sys
import traceback
from typing import Annotated

import typer

from nas.cli import device, files, listing, runs
from search_spaces.errors import NasError, RunError

app = typer.Typer(
    name="nas",
    help="Find, compress and export small vision networks that meet an embedded device's budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
INTERRUPTED = 130
_debug: list[bool] = []


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find, compress and export small vision networks that meet an embedded device's budget."""
    if debug:
        _debug.append(True)


runs.add_to(app)
files.add_to(app)
listing.add_to(app)
app.add_typer(device.app, name="device")


def main() -> None:
    """Run the program; every error a user can mend is one sentence on stderr and has its exit code."""
    from nas.workers import PASSIVE_THREADS

    for name, value in PASSIVE_THREADS.items():
        os.environ.setdefault(name, value)
    _debug.clear()
    try:
        code = _run()
    except NasError as error:
        code = _tell(error, str(error), error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except MemoryError as error:
        code = _tell(error, "out of memory; use fewer workers or a smaller batch", RunError.exit_code)
    except OSError as error:
        code = _tell(error, _refusal(error), RunError.exit_code)
    except Exception as error:  # the last edge: nothing above it could say more
        code = _tell(error, f"internal error: {type(error).__name__}: {error} (--debug shows where)", 1)
    if code == INTERRUPTED:
        print("nas: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(_flushed(code))


def _run() -> int:
    """Run the command and return its exit code; typer turns help, bad usage and Ctrl-C into SystemExit."""
    try:
        app(prog_name="nas")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0


def _refusal(error: OSError) -> str:
    """Return the sentence about what the operating system refused."""
    place = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}the disk is full; free space and run again"
    return f"{place}{error.strerror or error}"


def _flushed(code: int) -> int:
    """Return the exit code after all output was written, or that of a disk that refused it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        if code == 0 and not isinstance(error, BrokenPipeError):  # a reader that has read enough is no failure
            return _tell(error, f"the output cannot be written: {_refusal(error)}", RunError.exit_code)
    return code


def _tell(error: BaseException, message: str, code: int) -> int:
    if _debug:
        traceback.print_exception(error)
    print(f"nas: {message}", file=sys.stderr)
    return code
