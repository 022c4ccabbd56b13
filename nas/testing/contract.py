"""How a contract speaks: one error for whatever a plug-in does wrong, with what showed it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


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
        raise ContractError(f"{what}: {type(error).__name__}: {error}", sample) from error


@contextmanager
def sampled(sample: str) -> Iterator[None]:
    """Add the sample to what is broken within, and report whatever else a plug-in raises."""
    try:
        yield
    except ContractError as error:
        raise ContractError(error.reason, error.sample or sample) from error
    except Exception as error:
        raise ContractError(f"{type(error).__name__}: {error}", sample) from error


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function made of a plug-in, so that several checks look at one fit, stage or export.

    Plug-ins are hashable, which `check_options` looks at; the types of their protocols do not say so.
    """
    return cast("Callable[P, T]", lru_cache(maxsize=16)(make))
