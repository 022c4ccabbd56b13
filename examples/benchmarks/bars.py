"""What the benchmark scripts share: a bar, the fixed numpy workload beside seconds, the table and the JSON file."""

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "optuna", "fvcore", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure and what it must reach."""

    name: str
    value: float
    unit: str
    bar: float
    direction: Literal[">=", "<="]

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bar if self.direction == ">=" else self.value <= self.bar


def numpy_workload_s(times: int = 5) -> float:
    """Return the median CPU seconds of a fixed piece of numpy work: what a second is worth on this machine now."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(400, 400)), rng.normal(size=(400, 400))
    found = []
    for _ in range(times):
        start = time.process_time()
        for _ in range(10):
            np.sort(left @ right, axis=1)
        found.append(time.process_time() - start)
    return float(np.median(found))


def finish(bars: Sequence[Bar], path: Path | None, **more: Any) -> int:
    """Print the table of bars and write them; return the exit status, 1 where a bar is missed."""
    print(f"\n{'bar':34}{'value':>12}  {'':2} {'bar':>10}  unit")
    for bar in bars:
        verdict = "" if bar.met else "   MISSED"
        print(f"{bar.name:34}{bar.value:12.4g}  {bar.direction:2} {bar.bar:10.4g}  {bar.unit}{verdict}")
    if path is not None:
        record: Mapping[str, Any] = {
            "bars": [asdict(bar) for bar in bars],
            "command": " ".join(["python", *(Path(word).name if word.startswith("/") else word for word in sys.argv)]),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "numpy_workload_cpu_s": numpy_workload_s(),
            **more,
        }
        path.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(bar.met for bar in bars) else 1
