"""One search, two devices: what is found depends on where it must run.

    python examples/benchmarks/device_aware.py --json device_aware.json        about 10 minutes on 2 cores

The first device is this machine. The second is a table made from the public latencies of FBNet networks on a GPU at
batch 1 (titan_rtx_1 in ../shared/data/latency), where starting a kernel costs most: three prices (a kernel, a MAC, an
element moved) are fitted to those rows, and the table lists what they say of the probe networks, labelled "estimated".
Both searches have the same seed, number of networks and budget: the fastest quarter of the space on that device.

A device's winner is the fastest network of its front within a point of the accuracy that both fronts reach. Each device
must know better than to take the other's winner: its own front holds one at least as accurate and faster there.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.optimize
from bars import Bar, finish

from latency_models.backends.local import Local
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.probe import choose_probes
from nas.config import RunConfig, load_config
from nas.pipeline.parts import search_only
from nas.pipeline.preparing import Prepared, prepare
from nas.pipeline.setup import fit_space, load_run_task
from nas.search.objectives import Budget
from nas.search.study import Entry, SearchResult
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.fbnet import NAMES, FBNetSpace
from search_spaces.fusion import fuse
from search_spaces.lowering import lower
from search_spaces.space import decode, sample

SOURCE = "titan_rtx_1"
FITTED_ON = 1000
CONFIG = """
seed = 0
[task]
type = "digits"
[data]
height = 32
width = 32
color = "grey"
augment = ["shift"]
[space]
type = "mixed"
widths = [[8, 16, 24], [16, 24, 32], [24, 32, 48], [32, 48, 64], [48, 64, 96]]
depths = [1, 2, 3]
[budget]
precision = "float32"
[search]
trials = 48
rungs = { epochs = [1, 2, 4], keep = 0.5 }
"""


def amounts(architecture: Architecture) -> list[float]:
    """Return kernels, millions of MACs and millions of elements moved of a fused network."""
    workload = lower(architecture)
    ops = [op for op in fuse(workload) if op.kind != "reshape"]
    moved = sum(value.elements for op in ops for value in (*op.inputs, *op.outputs))
    return [float(len(ops)), macs(workload) / 1e6, moved / 1e6]


def fit_prices(data: Path) -> np.ndarray:
    """Fit a constant and three prices to the public rows of the source device; print how well they explain it."""
    table = np.load(data / "fbnet_latency.npz", allow_pickle=False)
    latency = table["latency_ms"][:, list(table["devices"]).index(SOURCE)]
    order = [NAMES.index(str(name)) for name in table["op_names"]]
    space = FBNetSpace(classes=100)
    rows = np.array(order)[table["op_idx"][: 2 * FITTED_ON]]
    design = np.array([[1.0, *amounts(decode(space, row))] for row in rows])
    fitted, held_out = slice(0, FITTED_ON), slice(FITTED_ON, 2 * FITTED_ON)
    scaled = design[fitted] / latency[fitted, None]
    prices, _ = scipy.optimize.nnls(scaled, np.ones(FITTED_ON))
    error = np.abs(design[held_out] @ prices / latency[held_out] - 1)
    print(
        f"{SOURCE}: {prices[0]:.3g} ms + {prices[1]:.3g} a kernel + {prices[2]:.3g} a million MACs + {prices[3]:.3g} "
        f"a million elements; MAPE {100 * error.mean():.1f} % on {FITTED_ON} other networks"
    )
    return prices


def write_table(config: RunConfig, folder: Path, prices: np.ndarray) -> Path:
    """Write the table of the estimated device for the run's probe networks."""
    space = fit_space(config.space, load_run_task(config, folder))
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "latency_ms", "origin"])
        for network in choose_probes(space, config.probe):
            latency = float(np.array([1.0, *amounts(network)]) @ prices)
            writer.writerow([f"{network.key}.float32.onnx", repr(latency), "estimated"])
    return path


def with_budget(config: RunConfig, folder: Path) -> tuple[RunConfig, Prepared]:
    """Return the configuration with the latency that the fastest quarter of the space meets."""
    prepared = prepare(config, folder, store=folder.parent / "devices")
    rows = sample(prepared.space, 4096, np.random.default_rng(0))
    quarter = float(np.quantile(prepared.costs(rows).figures["upper_ms"], 0.25))
    budget = Budget(latency_ms=float(f"{quarter:.4g}"), precision="float32")
    return dataclasses.replace(config, budget=budget), prepared


def winner(result: SearchResult, accuracy: float) -> Entry | None:
    """Return the fastest network of the front that is at least this accurate; None where none is."""
    fit = [entry for entry in result.front() if entry.metric.value >= accuracy]
    return min(fit, key=lambda entry: entry.objective) if fit else None


def describe(name: str, entries: Sequence[Entry]) -> None:
    """Print a front."""
    print(f"\nfront on {name}:")
    for entry in entries:
        kernels, millions, _ = amounts(entry.architecture)
        print(f"  {entry.key}  {entry.metric.value:.4f}  {entry.objective:.4f} ms  {kernels:3.0f} kernels  "
              f"{millions:5.2f} M MACs")  # fmt: skip


def main() -> int:
    """Search twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/latency"))
    parser.add_argument("--runs", type=Path, default=Path("runs/device_aware"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (options.data / "fbnet_latency.npz").exists():
        print(f"{options.data} holds no fbnet_latency.npz; say --data")
        return 2
    folder = options.runs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(CONFIG)
    config = load_config(folder / "run.toml")
    table = write_table(config, folder, fit_prices(options.data))
    devices = {
        "this machine": Device(name="this-machine", backend=Local(), precisions=("float32",)),
        f"{SOURCE} (estimated)": Device(
            name="titan-estimated", backend=Table(path=str(table)), precisions=("float32",)
        ),
    }
    found: dict[str, SearchResult] = {}
    prepared: dict[str, Prepared] = {}
    for name, device in devices.items():
        own = dataclasses.replace(config, device=device)
        target = folder / device.name
        budgeted, prepared[name] = with_budget(own, target / "probing")
        print(f"{name}: latency at most {budgeted.budget.latency_ms} ms", flush=True)
        os.environ["NAS_DEVICES"] = str(target / "devices")
        found[name] = search_only(budgeted, target / "run")
        describe(name, found[name].front())

    names = list(devices)
    level = min(max(entry.metric.value for entry in result.front()) for result in found.values()) - 0.01
    winners = {name: winner(result, level) for name, result in found.items()}
    gains, rows = [], []
    print(f"\nfastest of at least {level:.4f} accuracy, and what the other device takes instead:")
    for name, other in (names, names[::-1]):
        theirs = winners[other]
        assert theirs is not None  # both fronts reach the level
        mine = winner(found[name], theirs.metric.value)
        if mine is None:
            print(f"  {name} found nothing as accurate as {theirs.metric.value:.4f}")
            gains.append(0.0)
            continue
        fast, slow = map(float, prepared[name].costs.of([mine.architecture, theirs.architecture]).objective)
        gains.append(slow / fast)
        rows.append({"device": name, "own": mine.key, "other": theirs.key, "own_ms": fast, "other_ms": slow,
                     "own_accuracy": mine.metric.value, "other_accuracy": theirs.metric.value})  # fmt: skip
        print(f"  on {name}: the other's winner {slow:.4f} ms ({theirs.metric.value:.4f}), its own front has "
              f"{fast:.4f} ms ({mine.metric.value:.4f}): {slow / fast:.2f}x")  # fmt: skip
    shared = {entry.key for entry in found[names[0]].front()} & {entry.key for entry in found[names[1]].front()}
    bars = [
        Bar(name="own_winner_gain_min", value=min(gains), unit="x", bar=1.0, direction=">="),
        Bar(name="networks_on_both_fronts", value=len(shared), unit="networks", bar=1, direction="<="),
    ]
    return finish(bars, options.json, rows=rows)


if __name__ == "__main__":
    raise SystemExit(main())
