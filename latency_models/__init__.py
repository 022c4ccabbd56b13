"""What a network costs on a device: timings, models fitted to them, and the graphs that are timed.

Read in this order: `device` (what a device is), `timing` and `measure` (how times are taken), `features` (a workload in
physical numbers), `prediction` (what a fitted model promises), `additive` (the default model), `probe` and `profile`
(a device measured once and kept), `graph` (workloads written as ONNX files). Nothing here knows Optuna or training.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latency_models.additive import Additive
    from latency_models.device import Device, MemoryRegion
    from latency_models.lookup import Lookup
    from latency_models.measure import Rounds, take_visits
    from latency_models.prediction import LATENCY_MODELS, LatencyModel, Prediction, Predictor, Sample
    from latency_models.probe import ProbeOptions
    from latency_models.profile import Profile
    from latency_models.score import Score
    from latency_models.timing import BACKENDS, Backend, Timing

_HOME = {
    "Additive": "additive", "BACKENDS": "timing", "Backend": "timing", "Device": "device",
    "LATENCY_MODELS": "prediction", "LatencyModel": "prediction", "Lookup": "lookup", "MemoryRegion": "device",
    "Prediction": "prediction", "Predictor": "prediction", "ProbeOptions": "probe", "Profile": "profile",
    "Rounds": "measure", "Sample": "prediction", "Score": "score", "Timing": "timing", "take_visits": "measure",
}  # fmt: skip

__all__ = [
    "Additive", "BACKENDS", "Backend", "Device", "LATENCY_MODELS", "LatencyModel", "Lookup", "MemoryRegion",
    "Prediction", "Predictor", "ProbeOptions", "Profile", "Rounds", "Sample", "Score", "Timing", "take_visits",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
