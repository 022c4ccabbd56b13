"""The program `nas`: its commands, and what becomes of an error."""

import os
import sys
import traceback
from typing import Annotated

import typer

from nas.cli import device, files, listing, runs
from search_spaces.errors import NasError

app = typer.Typer(
    name="nas",
    help="Find, compress and export small vision networks that meet an embedded device's budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
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
    try:
        app()
    except NasError as error:
        _tell(error, str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _tell(None, "interrupted; the same command goes on from here")
        sys.exit(130)
    except MemoryError as error:
        _tell(error, "out of memory; use fewer workers or a smaller batch")
        sys.exit(8)
    except Exception as error:  # the last edge: nothing above it could say more
        _tell(error, f"internal error: {type(error).__name__}: {error} (--debug shows where)")
        sys.exit(1)


def _tell(error: BaseException | None, message: str) -> None:
    if error is not None and _debug:
        traceback.print_exception(error)
    print(f"nas: {message}", file=sys.stderr)
