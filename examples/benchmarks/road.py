"""How fast the parts of the road are: counting, writing probe files, probing; and how well the fit predicts.

    python examples/benchmarks/road.py --json road.json        about 4 minutes

Everything runs on one thread and in CPU seconds. Counting is set beside fvcore's trace of the same networks.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish, numpy_workload_s

from latency_models.additive import Additive
from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.prediction import Sample
from latency_models.probe import ProbeOptions, choose_probes, write_probe
from latency_models.score import score
from nas.evaluate.independent import count_with_fvcore
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.counts import macs, parameters
from search_spaces.lowering import lower, lower_block
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample

SPACE = MixedSpace(resolutions=(32, 48, 64, 96))
DISTINCT = 2000
TRACED = 50
PROBES = 100
HELD_OUT = 60


def distinct_networks(count: int, seed: int) -> list[Architecture]:
    """Return distinct random networks of the space."""
    found: dict[str, Architecture] = {}
    rng = np.random.default_rng(seed)
    while len(found) < count:
        for row in sample(SPACE, count, rng):
            network = decode(SPACE, row)
            found.setdefault(network.key, network)
    return list(found.values())[:count]


def counting() -> tuple[list[Bar], dict[str, float]]:
    """Lower and count from an empty cache, again from a full one, and let fvcore trace 50 of the networks."""
    networks = distinct_networks(DISTINCT, seed=1)
    lower_block.cache_clear()

    def count_all() -> float:
        start = time.process_time()
        for network in networks:
            workload = lower(network)
            macs(workload), parameters(workload)
        return (time.process_time() - start) / len(networks)

    cold = count_all()
    cache = lower_block.cache_info()
    hit_rate = cache.hits / (cache.hits + cache.misses)
    warm = [count_all() for _ in range(5)]

    traced, equal = [], 0
    for network in networks[:TRACED]:
        module = build(network).eval()
        start = time.process_time()
        independent = count_with_fvcore(module, network.input_shape)
        traced.append(time.process_time() - start)
        workload = lower(network)
        equal += (independent["macs"].value, independent["parameters"].value) == (macs(workload), parameters(workload))
    fvcore = float(np.median(traced))
    figures = {
        "fvcore_ms": 1e3 * fvcore,
        "cold_ms": 1e3 * cold,
        "warm_ms": 1e3 * float(np.median(warm)),
        "warm_ms_spread": 1e3 * float(np.ptp(warm)),
        "cold_ratio": float(np.mean(traced)) / cold,
        "hit_rate": hit_rate,
    }
    print(
        f"lowering + counting {DISTINCT} distinct networks of {SPACE.resolutions} px against fvcore tracing {TRACED}:"
    )
    print(f"  fvcore {figures['fvcore_ms']:.1f} ms a network (median; {min(traced) * 1e3:.1f}-{max(traced) * 1e3:.1f})")
    print(f"  ours, cache empty at first {figures['cold_ms']:.3f} ms: ratio {figures['cold_ratio']:.0f}")
    print(f"  ours, cache full {figures['warm_ms']:.4f} ms; hit rate {hit_rate:.4f}; MACs, parameters equal {equal}")
    return [
        Bar(name="counting_warm_ratio", value=fvcore / np.median(warm), unit="x", bar=100, direction=">="),
        Bar(name="counts_equal", value=equal, unit="networks", bar=TRACED, direction=">="),
    ], figures


def writing(device: Device, folder: Path) -> tuple[list[Bar], dict[str, float]]:
    """Write profiled networks in both precisions, the writer warm."""
    graph_input = GraphInput()
    networks = distinct_networks(60, seed=2)
    seconds: dict[str, list[float]] = {"float32": [], "int8": []}
    for number, network in enumerate(networks):
        lower(network)
        for precision in device.precisions:
            start = time.process_time()
            write_probe(network, precision, device, graph_input, folder / "written.onnx", seed=number)
            if number >= 10:
                seconds[precision].append(1e3 * (time.process_time() - start))
    medians = {f"written_{name}_ms": float(np.median(known)) for name, known in seconds.items()}
    print("\na profiled network written (CPU ms, median, 10-90 %): " + ", ".join(
        f"{name} {np.median(known):.1f} ({np.quantile(known, 0.1):.1f}-{np.quantile(known, 0.9):.1f})"
        for name, known in seconds.items()
    ))  # fmt: skip
    return [
        Bar(name="profiled_network_written_ms", value=medians["written_float32_ms"], unit="CPU ms", bar=20,
            direction="<="),
        Bar(name="profiled_int8_network_written_ms", value=medians["written_int8_ms"], unit="CPU ms", bar=20,
            direction="<="),
    ], medians  # fmt: skip


def probing(device: Device, folder: Path) -> tuple[list[Bar], dict[str, float]]:
    """Probe networks in one interleaved session, fit on 100 of them and predict the others; seconds are per 100."""
    graph_input = GraphInput()
    probes = choose_probes(SPACE, ProbeOptions(networks=PROBES, seed=3))
    used = {network.key for network in probes}
    others = [network for network in distinct_networks(HELD_OUT + PROBES, seed=4) if network.key not in used]
    bars, figures = [], {}
    networks = [*probes, *others[:HELD_OUT]]
    for precision, share in (("float32", 0.95), ("int8", 0.90)):
        start = time.process_time()
        samples = time_networks(device, networks, precision, graph_input, folder)
        spent = (time.process_time() - start) * PROBES / len(networks)
        timed, held_out = samples[:PROBES], samples[PROBES:]
        predictor = Additive().fit(device, timed)
        predicted = predictor.predict([known.workload for known in held_out])
        found = score(predicted.mean_ms, np.array([known.latency_ms for known in held_out]), predicted)
        print(
            f"{precision}: {spent:.1f} CPU s to write and time {PROBES} networks; {HELD_OUT} others: "
            f"{found.within_5:.0%} within 5 %, {found.within_10:.0%} within 10 %, MAPE {100 * found.mape:.1f} %, "
            f"90 % interval covers {found.coverage_90:.0%}"
        )
        figures |= {f"{precision}_within_5": found.within_5, f"{precision}_mape": found.mape}
        bars += [
            Bar(name=f"probe_{precision}_cpu_s", value=spent, unit="CPU s", bar=30, direction="<="),
            Bar(name=f"{precision}_within_10", value=found.within_10, unit="share", bar=share, direction=">="),
        ]
    return bars, figures


def time_networks(
    device: Device, networks: list[Architecture], precision: str, graph_input: GraphInput, folder: Path
) -> list[Sample]:
    """Write and time networks in one precision."""
    assert precision in ("float32", "int8")
    files = []
    for number, network in enumerate(networks):
        path = folder / f"{network.key}.{precision}.onnx"
        write_probe(network, precision, device, graph_input, path, seed=number)
        files.append(path)
    reference = files[int(np.argsort([macs(lower(network)) for network in networks])[len(files) // 2])]
    plan = device.quantization if precision == "int8" else None
    return [
        Sample(with_precision(lower(network), plan), timing.latency_ms)
        for network, timing in zip(networks, device.backend.measure(files, reference), strict=True)
    ]


def main() -> int:
    """Run all and write the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = Device(name="this-machine", backend=Local())
    print(f"fixed numpy workload: {numpy_workload_s():.3f} CPU s\n")
    bars, figures = counting()
    with tempfile.TemporaryDirectory() as folder:
        for part in (writing, probing):
            more_bars, more = part(device, Path(folder))
            bars += more_bars
            figures |= more
    return finish(bars, options.json, figures=figures)


if __name__ == "__main__":
    raise SystemExit(main())
