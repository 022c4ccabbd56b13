"""Translation of torch's operators into our vocabulary: the only package that knows aten names.

Each reader takes the bound arguments of one call (defaults filled in) and returns a `Call`, or an `Alias` where
the call only renames a tensor; a rewriter computes the call by other operators, which are then recorded. Operators
that are in neither table raise LoweringError in the recorder. In reading order: `calls`, `general`, `weighted`,
`arithmetic`, `reductions`, `movement`, `rewrites`, `readers`, `refusals`.

Multi-head attention is matrix products and a softmax, with or without `scaled_dot_product_attention`; it is priced
as that, not as a fused kernel. What `record` does not take:

* convolutions, padding and resizing over three axes, bilinear and recurrent layers, embeddings, FFTs;
* normalization by the statistics of a batch (instance and group normalization are taken);
* log-softmax (return the logits), the places of maxima (return what is compared), sorting, running sums;
* writes to a part of a tensor, circular padding (which torch computes so), gathering or scattering by computed places;
* what depends on the values of a tensor (`if` on a tensor, `item()`, an index by a mask) or on random numbers;
* what a module computes of its own parameters on every pass, views apart, and constants it makes anew: register the
  result as a buffer.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.aten.calls import Alias, Call
    from search_spaces.aten.readers import FIRST_RESULT_ONLY, IGNORED, READERS, SAME_SHAPE, VIEWS
    from search_spaces.aten.rewrites import InstanceNormOneByOne, rewriter

_HOME = {
    "Alias": "calls", "Call": "calls", "FIRST_RESULT_ONLY": "readers", "IGNORED": "readers",
    "InstanceNormOneByOne": "rewrites", "READERS": "readers", "SAME_SHAPE": "readers", "VIEWS": "readers",
    "rewriter": "rewrites",
}  # fmt: skip

__all__ = [
    "Alias", "Call", "FIRST_RESULT_ONLY", "IGNORED", "InstanceNormOneByOne", "READERS", "SAME_SHAPE", "VIEWS",
    "rewriter",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
