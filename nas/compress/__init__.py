"""Compression stages: a candidate goes in, a smaller or better one comes out, the input stays as it was.

Read first `prune.py` (with `channels.py`, which channels go together; `importance.py`, what they are worth;
`allocate.py`, how many go), `distill.py` and `quantize.py`. `nas/protocols.py` holds the protocol a stage fulfils.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.compress.distill import Distill
    from nas.compress.prune import Prune
    from nas.compress.quantize import Quantize

__all__ = [
    "Distill",
    "Prune",
    "Quantize",
]

_HOME = {
    "Distill": "nas.compress.distill",
    "Prune": "nas.compress.prune",
    "Quantize": "nas.compress.quantize",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
