"""The public tables as features and latencies."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from transfer_spaces import features_of, lower_fbnet, lower_nb201, lower_ofa

from latency_models.prediction import Array
from latency_models.transfer.few_shot import Features
from latency_models.transfer.operators import IntArray
from latency_models.transfer.population import Population

FILES = {"nb201": "nb201_latency.npz", "fbnet": "fbnet_latency.npz", "ofa": "ofa_mbv3_latency.npz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A tabular space.

    Attributes:
        name: Of the space.
        features: Inputs of its `n` networks.
        latency_ms: `n` latencies for each device, NaN where not measured.
        sources_measured: Networks that NASFLAT measures on each source device.
    """

    name: str
    features: Features
    latency_ms: dict[str, Array]
    sources_measured: int

    def measured(self, device: str) -> IntArray:
        """Return the networks with a usable latency on `device`."""
        values = self.latency_ms[device]
        return np.flatnonzero(np.isfinite(values) & (values > 0))


@cache
def load_space(data: Path, name: str) -> Space:
    """Load `nb201`, `fbnet` or `ofa`."""
    stored = np.load(data / FILES[name])
    table = stored["latency_ms"].astype(np.float64)
    latency = {str(device): table[:, i] for i, device in enumerate(stored["devices"])}
    if name == "nb201":
        lowerings, context = lower_nb201(stored["ops"].astype(np.int64))
        for i, device in enumerate(stored["subset_devices"]):
            latency[str(device)] = np.full(len(table), np.nan)
            latency[str(device)][stored["subset_index"]] = stored["subset_latency_ms"][:, i]
        latency["desktop_cpu_core_i7_7820x_fp32"] = stored["eagle_i7_full_ms"].astype(np.float64)
    elif name == "fbnet":
        lowerings, context = lower_fbnet(stored["op_idx"].astype(np.int64))
    else:
        columns = (stored[key].astype(np.int64) for key in ("kernel", "expand", "depth", "resolution"))
        lowerings, context = lower_ofa(*columns)
    return Space(
        name=name,
        features=features_of(lowerings, context, Population()),
        latency_ms=latency,
        sources_measured=512 if name == "nb201" else 800,
    )
