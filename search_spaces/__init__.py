"""Networks as values: blocks, search spaces, and what networks cost.

Read in this order: `architecture` (a network is a value), `blocks` (what it is made of), `space` (choices and their
decoder), `mixed` (the default family), `lowering` (from blocks to operators), `workload` (the operators), `counts`
and `memory` (what they cost), `tables` (the same for a million networks), `build` (from value to torch module).
Nothing here knows devices, Optuna or ONNX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.architecture import BLOCKS, Architecture, Block, Shape
    from search_spaces.build import Network, slice_weights
    from search_spaces.counts import activation_traffic_bytes, flash_bytes, macs, parameters, weight_bytes
    from search_spaces.errors import NasError
    from search_spaces.fusion import fuse
    from search_spaces.lowering import lower, record
    from search_spaces.measurement import Measurement
    from search_spaces.memory import mcunet_peak_bytes, peak_bytes, plan_memory
    from search_spaces.patches import best_patches, plan_patches
    from search_spaces.precision import Precision, QuantizationPlan, with_precision
    from search_spaces.published import load_published
    from search_spaces.reference_networks import REFERENCES, Reference
    from search_spaces.registry import Registry
    from search_spaces.reparametrize import deploy, training_form
    from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, SearchSpace
    from search_spaces.tables import CostTables, Price
    from search_spaces.workload import Op, Segment, Value, Workload

_HOME = {
    "BLOCKS": "architecture", "Architecture": "architecture", "Block": "architecture", "Shape": "architecture",
    "Network": "build", "slice_weights": "build",
    "activation_traffic_bytes": "counts", "flash_bytes": "counts", "macs": "counts", "parameters": "counts",
    "weight_bytes": "counts",
    "NasError": "errors", "fuse": "fusion", "lower": "lowering", "record": "lowering",
    "Measurement": "measurement", "mcunet_peak_bytes": "memory", "peak_bytes": "memory", "plan_memory": "memory",
    "best_patches": "patches", "plan_patches": "patches",
    "Precision": "precision", "QuantizationPlan": "precision", "with_precision": "precision",
    "load_published": "published", "deploy": "reparametrize", "training_form": "reparametrize",
    "REFERENCES": "reference_networks", "Reference": "reference_networks", "Registry": "registry",
    "SEARCH_SPACES": "space", "Chain": "space", "ChainSpace": "space", "Choice": "space",
    "Position": "space", "SearchSpace": "space", "CostTables": "tables", "Price": "tables",
    "Op": "workload", "Segment": "workload", "Value": "workload", "Workload": "workload",
}  # fmt: skip

__all__ = [
    "Architecture", "BLOCKS", "Block", "Chain", "ChainSpace", "Choice", "CostTables", "Measurement", "NasError",
    "Network", "Op", "Position", "Precision", "Price", "QuantizationPlan", "REFERENCES", "Reference", "Registry",
    "SEARCH_SPACES", "SearchSpace", "Segment", "Shape", "Value", "Workload", "activation_traffic_bytes", "best_patches",
    "deploy", "flash_bytes", "fuse", "load_published", "lower", "macs", "mcunet_peak_bytes", "parameters",
    "peak_bytes", "plan_memory", "plan_patches", "record",
    "slice_weights", "training_form", "weight_bytes", "with_precision",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
