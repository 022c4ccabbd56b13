"""From a workload to an ONNX file, written directly: float32 and int8 in the QDQ form, in milliseconds.

The same layers serve both precisions, and random weights run the same kernels in the same time as trained ones, so
one writer probes devices and makes the delivered int8 file. Read in this order: `graph_input` (how the file takes
an image), `network` (a workload with its weights folded in), `simplify`, `channel_moves` and `depthwise_padding`
(rewrites, all exact), `emitter`, `operators` and `general_operators` (ONNX nodes), `float32`, then for 8 bits
`ranges`, `quantizers`, `islands`, `stem`, `int8_forms` and `int8`; `stored` counts what the file holds and computes
without writing it. Needs onnx and numpy, no runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latency_models.graph.float32 import float_model
    from latency_models.graph.graph_input import GraphInput
    from latency_models.graph.int8 import int8_model
    from latency_models.graph.ranges import Ranges, merge_ranges
    from latency_models.graph.stored import file_workload, stored_bytes
    from latency_models.graph.weights import Weights

_HOME = {
    "GraphInput": "graph_input", "Ranges": "ranges", "Weights": "weights", "file_workload": "stored",
    "float_model": "float32", "int8_model": "int8", "merge_ranges": "ranges", "stored_bytes": "stored",
}  # fmt: skip

__all__ = [
    "GraphInput", "Ranges", "Weights", "file_workload", "float_model", "int8_model", "merge_ranges", "stored_bytes",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
