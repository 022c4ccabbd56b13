"""How well latency is measured and predicted on this machine, on the mixed space under onnxruntime.

    python examples/benchmarks/latency_local.py --json latency_local.json      about 6 minutes on one core

Networks are drawn at random from `MixedSpace()`; each is written as the file a run would deliver, with random weights,
and timed by the back end `local` with one thread, all of one precision in one interleaved session. The winners' later
sessions are tied to it by anchors, as those of a run are; the levels found are printed. Bars:

- w10_100, w5_100, mape_100: a model fitted to 100 networks, judged on all others; median over 8 random splits;
- w10_50: the same from 50; w10_int8_100: the same from 100 int8 files;
- protocol_error: 60 networks timed in the same sessions with quiet and loaded rounds in turn, one busy process on the
  loaded ones; median |loaded / quiet - 1|;
- winner_bias_before, winner_bias: 30 networks that a search selected on the model of 100 networks chosen as
  `nas device add` chooses them, measured; mean of predicted / measured - 1, then once more for 30 others selected by
  the model refitted with the first 30.

What was measured is kept beside this script in `latency_local.raw/` and read from there by the next run on the same
machine and runtime; remove the folder to measure again.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latency_models.backends import timing_script as protocol
from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.prediction import LATENCY_MODELS, Predictor, Sample
from latency_models.probe import ProbeOptions, choose_probes, write_probe
from latency_models.profile import Probed, Profile, digest
from latency_models.score import Score, score
from latency_models.sessions import choose_anchors, time_networks
from latency_models.timing import Timing
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import Precision, QuantizationPlan, with_precision
from search_spaces.space import decode, encode, mutate, sample

SPACE = MixedSpace()
GRAPH_INPUT = GraphInput()
NETWORKS, INT8_NETWORKS, SPLITS, PROBES, WINNERS, LOADED = 500, 400, 8, 100, 30, 60
RAW = Path(__file__).with_suffix(".raw")
Array = npt.NDArray[np.float64]


def main() -> None:
    """Measure what is missing, compare, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--model", default="additive", help="registered latency model")
    arguments = parser.parse_args()
    device = Device(name="this-machine", backend=Local())
    model = LATENCY_MODELS.get(arguments.model)()
    rows = sample(SPACE, NETWORKS, np.random.default_rng(0))
    networks = [decode(SPACE, row) for row in rows]
    start = time.monotonic()
    float_ms = kept("float32", device, lambda: time_all(device, networks, "float32"))
    int8_ms = kept("int8", device, lambda: time_all(device, networks[:INT8_NETWORKS], "int8"))
    loads = kept("protocol", device, lambda: time_loaded(device, networks[:LOADED]))

    def fitted(size: int, split: int, precision: Precision) -> tuple[Predictor, Score]:
        latencies = leveled(float_ms if precision == "float32" else int8_ms)
        samples = samples_of(networks, latencies, precision)
        order = np.random.default_rng(split).permutation(len(samples))
        predictor = model.fit(device, [samples[index] for index in order[:size]])
        rest = [samples[index] for index in order[size:]]
        prediction = predictor.predict([item.workload for item in rest])
        return predictor, score(prediction.mean_ms, np.array([item.latency_ms for item in rest]), prediction)

    scores = {
        (precision, size): [fitted(size, split, precision)[1] for split in range(SPLITS)]
        for precision, size in (("float32", 50), ("float32", 100), ("float32", 200), ("int8", 50), ("int8", 100))
    }
    biases = winner_biases(device, arguments.model)
    levels = np.array(loads["level"]) / np.median(loads["level"])  # as a timing divides by its rounds' levels
    quiet = np.median(np.array(loads["quiet"]) / levels[0::2], axis=1)
    loaded = np.median(np.array(loads["loaded"]) / levels[1::2], axis=1)
    error = np.abs(loaded / quiet - 1.0)
    bars = [
        bar("w10_100", median(scores["float32", 100], "within_10"), "share", 0.99, ">="),
        bar("w5_100", median(scores["float32", 100], "within_5"), "share", 0.94, ">="),
        bar("mape_100", 100 * median(scores["float32", 100], "mape"), "%", 2.0, "<="),
        bar("w10_50", median(scores["float32", 50], "within_10"), "share", 0.95, ">="),
        bar("w10_int8_100", median(scores["int8", 100], "within_10"), "share", 0.95, ">="),
        bar("protocol_error", 100 * float(np.median(error)), "%", 1.0, "<="),
        bar("winner_bias_before", 100 * abs(biases[0]["bias"]), "%", 3.0, "<="),
        bar("winner_bias", 100 * abs(biases[1]["bias"]), "%", 1.0, "<="),
    ]
    print_tables(scores, biases, error, bars)
    record = {
        "bars": bars,
        "command": " ".join(["python", *(Path(word).name if word.startswith("/") else word for word in sys.argv)]),
        "model": arguments.model,
        "versions": versions(),
        "machine": dict(device.backend.fingerprint()),
        "splits": {
            f"{precision}_{size}": [vars_of(found) for found in row] for (precision, size), row in scores.items()
        },
        "winners": biases,
        "protocol_error_percent": {str(p): 100 * float(np.percentile(error, p)) for p in (50, 90, 100)},
        "seconds": round(time.monotonic() - start, 1),
    }
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")


# -- measuring


def time_all(
    device: Device, networks: Sequence[Architecture], precision: Precision, anchors: Sequence[Probed] = ()
) -> dict[str, Any]:
    """Return the smallest sample of every visit in milliseconds, network by network, and the session's level."""

    def progress(label: str, share: float) -> None:
        print(f"\r{precision}: {label} {share:.0%}   ", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        timed = time_networks(
            replace(device, precisions=(precision,)), [(network, "probe") for network in networks], GRAPH_INPUT,
            folder=Path(folder), anchors=anchors, progress=progress,
        )  # fmt: skip
    visits = [[round(float(minimum), 6) for minimum in known.timing.minima_ms] for known in timed]
    return {"visits": visits, "level": timed[0].level}


def time_loaded(device: Device, networks: Sequence[Architecture]) -> dict[str, Any]:
    """Time networks in quiet and loaded rounds in turn, in the same sessions, with the reference between them."""
    assert isinstance(device.backend, Local)
    found: dict[str, Any] = {"quiet": [[] for _ in networks], "loaded": [[] for _ in networks], "load": [], "level": []}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            device.backend.runner(write(device, network, "float32", Path(folder) / f"{number}.onnx"))
            for number, network in enumerate(networks)
        ]
    counts = [protocol.runs_of_visit(run, 8.0, 5, 200, time.thread_time) for run in runs]
    visitors = [
        lambda run=run, count=count: protocol.visit(run, count, 2, time.thread_time)
        for run, count in zip(runs, counts, strict=True)
    ]
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    draw = np.random.default_rng(0)
    try:
        for turn in range(2 * device.backend.visits):
            kind = "loaded" if turn % 2 else "quiet"
            busy.send_signal(signal.SIGCONT if turn % 2 else signal.SIGSTOP)
            found["load"].append(os.getloadavg()[0])
            level, visits = protocol.one_round(visitors, visitors[0], list(draw.permutation(len(runs))), 10)
            found["level"].append(round(level, 6))
            for item, samples in enumerate(visits):
                found[kind][item].append(round(min(samples), 6))
    finally:
        busy.kill()
        busy.wait()
    return found


def write(device: Device, network: Architecture, precision: Precision, path: Path) -> Path:
    """Write one network as the file a run would deliver."""
    write_probe(network, precision, device, GRAPH_INPUT, path)
    return path


def kept(name: str, device: Device, measure: Callable[[], Any]) -> Any:  # Any: JSON values
    """Return what an earlier run measured on this machine, else measure now and keep it."""
    facts = {
        **device.backend.fingerprint(),
        "protocol": f"rounds divided by the level of the reference: {device.backend}",
        "networks": [NETWORKS, INT8_NETWORKS, PROBES, WINNERS, LOADED],
        "space": repr(SPACE),
    }
    path = RAW / f"{name}.{digest(facts)}.json"
    if not path.exists():
        found = measure()
        RAW.mkdir(exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps({"facts": facts, "ms": found}, separators=(",", ":")))
        path.with_suffix(".part").replace(path)
    return json.loads(path.read_text())["ms"]


def minima(visits: Sequence[Sequence[float]]) -> Array:
    """Return the latency of every network: the median over its visits' minima."""
    return np.array([np.median(visit) for visit in visits])


def leveled(record: dict[str, Any]) -> Array:
    """Return the latency of every network of a session, at the level of the first one."""
    return minima(record["visits"]) / float(record["level"])


def samples_of(networks: Sequence[Architecture], latencies: Array, precision: Precision) -> list[Sample]:
    """Return what a model is fitted to."""
    plan = QuantizationPlan() if precision == "int8" else None
    return [
        Sample(with_precision(lower(network), plan), float(ms))
        for network, ms in zip(networks, latencies, strict=False)
    ]


# -- winners


def winner_biases(device: Device, model_name: str) -> list[dict[str, Any]]:
    """Probe the device as a run does, select networks by search on the model, measure them, refit, do it once more."""
    model = LATENCY_MODELS.get(model_name)()
    probes = choose_probes(SPACE, ProbeOptions(networks=PROBES))
    visits = kept("probes", device, lambda: time_all(device, probes, "float32"))["visits"]
    samples = samples_of(probes, minima(visits), "float32")
    anchors = choose_anchors(profile_of(device, dict(zip(probes, visits, strict=True))), ("float32",))
    seen = {network.key for network in probes}
    found = []
    for step in ("before", "after one refit"):
        predictor = model.fit(device, samples)
        winners = select(predictor, seen, seed=len(found))
        record = kept(
            f"winners-{model_name}-{len(found)}-{digest({'keys': [item.key for item in winners]})}",
            device,
            lambda winners=winners: time_all(device, winners, "float32", anchors),
        )
        measured = leveled(record)
        predicted = predictor.predict([with_precision(lower(item), None) for item in winners]).mean_ms
        compared = score(predicted, measured)
        found.append({"step": step, **vars_of(compared), "measured_ms": [float(measured.min()), float(measured.max())],
                      "session_level": record["level"]})  # fmt: skip
        samples += samples_of(winners, measured, "float32")
        seen |= {item.key for item in winners}
    return found


def profile_of(device: Device, visits: Mapping[Architecture, Sequence[float]]) -> Profile:
    """Return measured networks as the profile of the device, from which anchors are chosen."""
    networks = tuple(
        Probed(
            architecture=network,
            precision="float32",
            timing=Timing(network.key, tuple(np.array([minimum]) for minimum in minimum_ms)),
        )
        for network, minimum_ms in visits.items()
    )
    return Profile(device=device.name, fingerprint={}, probes="", seconds=0.0, networks=networks)


def select(predictor: Predictor, seen: set[str], *, seed: int) -> list[Architecture]:
    """Return networks on the front of a made-up accuracy and predicted latency after four generations of mutation.

    The accuracy grows with the logarithm of MACs, with diminishing returns, plus a fixed random effect of every
    option: networks that the model takes for too fast win, as they do in a search.
    """
    draw = np.random.default_rng(seed)
    effects = np.random.default_rng(7).standard_normal(encode(SPACE, sample(SPACE, 1, draw)).shape[1])
    rows, names = sample(SPACE, 1500, draw), [choice.name for choice in SPACE.choices]
    assert names
    kept_rows: npt.NDArray[np.int64] = rows
    for _ in range(5):
        networks = [decode(SPACE, row) for row in rows]
        workloads = [with_precision(lower(network), None) for network in networks]
        latency = predictor.predict(workloads).mean_ms
        accuracy = np.log([macs(workload) for workload in workloads]) + 0.15 * encode(SPACE, rows) @ effects
        front = fronts(accuracy, latency, 2 * WINNERS)
        kept_rows = rows[front]
        rows = np.unique(np.concatenate([kept_rows, mutate(SPACE, np.repeat(kept_rows, 15, axis=0), draw)]), axis=0)
    winners: dict[str, Architecture] = {}
    for row in kept_rows:
        network = decode(SPACE, row)
        if network.key not in seen:
            winners.setdefault(network.key, network)
    return list(winners.values())[:WINNERS]


def fronts(accuracy: Array, latency: Array, count: int) -> npt.NDArray[np.int64]:
    """Return members of the first non-dominated fronts, `count` at most."""
    left, found = np.arange(len(accuracy)), np.empty(0, dtype=np.int64)
    while len(left) and len(found) < count:
        order = left[np.lexsort((-accuracy[left], latency[left]))]
        best = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order][:-1]]))
        front = order[accuracy[order] > best]
        found, left = np.concatenate([found, front]), np.setdiff1d(left, front)
    return found[:count]


# -- telling


def median(scores: Sequence[Score], name: str) -> float:
    """Return the median of one figure over splits."""
    return float(np.median([getattr(found, name) for found in scores]))


def bar(name: str, value: float, unit: str, limit: float, direction: str) -> dict[str, Any]:
    """Return one entry of the list of bars."""
    return {"name": name, "value": round(value, 4), "unit": unit, "bar": limit, "direction": direction}


def vars_of(found: Score) -> dict[str, float]:
    """Return the figures of a score by name."""
    return {name: round(float(getattr(found, name)), 5) for name in found.__dataclass_fields__}


def versions() -> dict[str, str]:
    """Return what the figures depend on."""
    import onnx
    import onnxruntime

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def print_tables(
    scores: dict[tuple[str, int], list[Score]],
    biases: Sequence[dict[str, Any]],
    error: Array,
    bars: Sequence[dict[str, Any]],
) -> None:
    """Print every figure with its range over splits."""
    print(f"{'fitted to':>12} {'within 5 %':>22} {'within 10 %':>22} {'MAPE %':>18} {'Spearman':>9} {'cover 90':>9}")
    for (precision, size), row in scores.items():
        cells = []
        for name, factor in (("within_5", 1.0), ("within_10", 1.0), ("mape", 100.0)):
            values = factor * np.array([getattr(found, name) for found in row])
            cells.append(f"{np.median(values):.3f} [{values.min():.3f}, {values.max():.3f}]")
        rank, cover = median(row, "spearman"), median(row, "coverage_90")
        print(f"{precision:>8} {size:3} {cells[0]:>22} {cells[1]:>22} {cells[2]:>20} {rank:9.4f} {cover:9.3f}")
    for found in biases:
        print(
            f"winners {found['step']}: bias {100 * found['bias']:+.2f} %, MAPE {100 * found['mape']:.2f} %, "
            f"within 10 % {found['within_10']:.3f}, {found['count']} networks, "
            f"level of their session {found['session_level']:.4f}"
        )
    print(f"loaded against quiet: median {100 * np.median(error):.3f} %, p90 {100 * np.percentile(error, 90):.3f} %")
    for entry in bars:
        met = entry["value"] >= entry["bar"] if entry["direction"] == ">=" else entry["value"] <= entry["bar"]
        told = "met" if met else "NOT MET"
        print(
            f"{entry['name']:20} {entry['value']:8.4f} {entry['unit']:6} {entry['direction']} {entry['bar']:g}  {told}"
        )


if __name__ == "__main__":
    main()
