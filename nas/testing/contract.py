"""How a contract speaks: one error for whatever a plug-in does wrong, with what showed it."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_NOT_THE_USERS = frozenset(
    {*sys.stdlib_module_names, "latency_models", "nas", "numpy", "onnx", "onnxruntime", "pydantic", "search_spaces",
     "torch"}
)  # fmt: skip


class ContractError(AssertionError):
    """A plug-in does not do what every one of its kind must; `sample` is the JSON of what showed it."""

    def __init__(self, reason: str, sample: str = "") -> None:
        super().__init__(f"{reason}; sample: {sample}" if sample else reason)
        self.reason, self.sample = reason, sample


@contextmanager
def told(what: str, sample: str = "") -> Iterator[None]:
    """Turn whatever a plug-in raises into ContractError: it is somebody else's code, and this is its report."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{what}: {described(error)}", sample) from error


@contextmanager
def sampled(sample: str) -> Iterator[None]:
    """Add the sample to what is broken within, and report whatever else a plug-in raises."""
    try:
        yield
    except ContractError as error:
        raise ContractError(error.reason, error.sample or sample) from error
    except Exception as error:
        raise ContractError(described(error), sample) from error


def described(error: BaseException) -> str:
    """Return what a plug-in raised: type, text, advice where there is some, and the last line of its own file."""
    return f"{type(error).__name__}: {error}{_advice(error)}{_place(error)}"


def _advice(error: BaseException) -> str:
    unhashable = re.search(r"unhashable type: '(\w+)'", str(error)) if isinstance(error, TypeError) else None
    if unhashable is None:
        return ""
    if unhashable[1] in ("list", "dict", "set", "bytearray"):
        return ": fields and options hold tuples of numbers and strings instead"
    return f": declare {unhashable[1]} @dataclass(frozen=True), with fields that hash"


def _place(error: BaseException) -> str:
    """Return the last frame that is neither ours nor of a library below us, of the innermost cause that has one."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in reversed(causes):
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            code = frame.f_code
            if package not in _NOT_THE_USERS and not code.co_filename.startswith("<"):
                return f" (at {_short(code.co_filename)}:{line}, in {code.co_name})"
    return ""


def _short(file: str) -> str:
    path = Path(file)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else file


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function made of a plug-in, so that several checks look at one fit, stage or export.

    Plug-ins are hashable, which `check_options` looks at; the types of their protocols do not say so.
    """
    return cast("Callable[P, T]", lru_cache(maxsize=16)(make))
