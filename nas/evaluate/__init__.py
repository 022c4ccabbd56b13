"""Evaluators: what says how good an architecture is."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.evaluate.independent import count_with_fvcore
    from nas.evaluate.training import Training

_HOME = {"Training": "training", "count_with_fvcore": "independent"}

__all__ = ["Training", "count_with_fvcore"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
