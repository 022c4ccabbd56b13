"""Shipped priors: public latency tables on this project's own operators, as sources for a new device.

Each file of `latency_models/priors` holds a sample of one public space's networks as counts of our fused operators,
made by the lowering of the registered space, and their published latencies on several devices. Their models are fitted
when they are asked for, so a better method needs no new files.

On the machine this project was built on they changed nothing beyond the noise
(`examples/benchmarks/latency_priors.py`), since the imaginary devices already know what such devices have in common.
They are therefore off unless `Transfer.priors` names some. Sources and licenses stand in each file and in
`latency_models/priors/NOTICE`.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.workloads import OperatorCounts
from search_spaces.errors import DeviceError, near_matches

SCHEMA = 1
FOLDER = Path(__file__).parent.parent / "priors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PriorTable:
    """Networks of one public space with their latencies on several devices.

    Attributes:
        space: Registered name of the space.
        source: Where the latencies were published.
        license: Of the published table.
        counts: The `m` networks.
        latency_ms: `m` published latencies for each device.
    """

    space: str
    source: str
    license: str
    counts: OperatorCounts
    latency_ms: Mapping[str, Array]

    def to_json(self) -> str:
        """Return the file's text."""
        record = {
            "schema": SCHEMA,
            "space": self.space,
            "source": self.source,
            "license": self.license,
            "latency_ms": {name: [float(f"{ms:.6g}") for ms in column] for name, column in self.latency_ms.items()},
            "counts": self.counts.to_dict(),
        }
        return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def prior_names() -> tuple[str, ...]:
    """Return every shipped prior as "space.device", sorted."""
    tables = (_table(path) for path in sorted(FOLDER.glob("*.json")))
    return tuple(sorted(f"{table.space}.{device}" for table in tables for device in table.latency_ms))


def prior_table(name: str) -> tuple[PriorTable, Array]:
    """Return the networks of a prior and their latencies; raises DeviceError with near matches for unknown names."""
    space, _, device = name.partition(".")
    path = FOLDER / f"{space}.json"
    if path.parent != FOLDER or not path.is_file() or device not in (table := _table(path)).latency_ms:
        raise DeviceError(f"no shipped prior {name!r}; {near_matches(name, prior_names())}")
    return table, table.latency_ms[device]


@functools.lru_cache(maxsize=8)
def _table(path: Path) -> PriorTable:
    record = json.loads(path.read_text())
    if record["schema"] != SCHEMA:
        raise DeviceError(f"the shipped prior {path.name} has schema {record['schema']!r}, expected {SCHEMA}")
    return PriorTable(
        space=record["space"],
        source=record["source"],
        license=record["license"],
        counts=OperatorCounts.from_dict(record["counts"]),
        latency_ms={name: np.asarray(column, dtype=np.float64) for name, column in record["latency_ms"].items()},
    )
