"""Labelled images and what becomes of them: sources, decoding rules, splits and the cache.

Read first `source.py` (what a plug-in hands over), `options.py` (what the `[data]` table says) and `load.py`
(from both to a task). `decode.py` and `resize.py` hold the rules an exported file carries along, `splits.py`
how images are divided, `identical.py` which ones are the same, `entries.py` and `store.py` what the cache
keeps.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.data.load import load_task
    from nas.data.options import DataOptions
    from nas.data.source import TASKS, Part, Source, TaskSource

__all__ = ["DataOptions", "Part", "Source", "TASKS", "TaskSource", "load_task"]

_HOME = {
    "DataOptions": "nas.data.options",
    "Part": "nas.data.source",
    "Source": "nas.data.source",
    "TASKS": "nas.data.source",
    "TaskSource": "nas.data.source",
    "load_task": "nas.data.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
