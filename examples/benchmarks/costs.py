"""How fast and how exact networks are priced without being built: tables, memory planner, flash, published peaks.

    python examples/benchmarks/costs.py --json costs.json      about 3 minutes on one core

- fast_path_archs_per_core_s: networks of `MixedSpace()` whose MACs, parameters, peak memory and additive latency are
  looked up in one second of CPU time, from filled tables; median of 7 passes over a million rows.
- fast_path_equal: of 1,000 random networks those whose table prices equal the scalar path, integers exactly and the
  latency to 1e-9.
- planner_at_bound_share: share of 500 int8 networks whose planned arena meets the liveness bound, where no plan can be
  smaller: 100 each of the mixed space, DenseNet and GhostNet, NAS-Bench-201, the hybrid space, and random graphs of up
  to 30 tensors. For those of up to 10 tensors the best arena of all is searched and compared.
- flash_error: greatest difference between the flash counted from a workload and the tensors of the int8 ONNX file, over
  50 networks of all spaces whose files have at least 100 kB. The sum over blocks that a search adds up is beside it.
- peak_vs_published: greatest difference of peak memory by MCUNet's formula, counted from our workloads, from the one
  evaluated on the published block lists (MCUNet-in0 to in4), and from the 1372 kB of arXiv:2110.15352 for MobileNetV2.
"""

import argparse
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bars import Bar, finish
from onnx import numpy_helper

from latency_models.additive import AdditiveLatency
from latency_models.features import segment_features
from latency_models.graph import int8_model, stored_bytes
from search_spaces import counts, memory
from search_spaces.architecture import Architecture
from search_spaces.densenet import densenet
from search_spaces.ghostnet import ghostnet
from search_spaces.lowering import lower
from search_spaces.mcunet import NETWORKS, mcunet
from search_spaces.memory import Buffer, plan_memory
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.precision import QuantizationPlan, quantize_segment, with_precision
from search_spaces.reference_networks import REFERENCES
from search_spaces.space import SEARCH_SPACES, SearchSpace, decode, sample
from search_spaces.tables import CostTables, Price
from search_spaces.workload import Op, Segment, Value, Workload

PLAN = QuantizationPlan()
ROWS, PASSES, EQUAL, EACH, FILES, SMALL = 1_000_000, 7, 1_000, 100, 50, 10
TINY_ENGINE_KB = {"in0": 49, "in1": 96, "in2": 215, "in3": 260, "in4": 416}
"""SRAM on STM32H743 from TinyEngine's README: with buffers and padding, so no value of the formula."""


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    speed, equal, planner = fast_path_speed(), fast_path_equal(), planner_shares()
    flash, peaks = flash_errors(), peak_differences()
    every = [share for kind in planner["at_bound"].values() for share in kind]
    bars = [
        Bar(name="fast_path_archs_per_core_s", value=speed["median"], unit="1/s", bar=1e6, direction=">="),
        Bar(name="fast_path_equal", value=equal, unit="networks", bar=EQUAL, direction=">="),
        Bar(name="planner_at_bound_share", value=float(np.mean(every)), unit="share", bar=0.95, direction=">="),
        Bar(name="flash_error", value=flash["whole network"]["greatest"], unit="%", bar=3.0, direction="<="),
        Bar(name="peak_vs_published", value=peaks["greatest"], unit="%", bar=1.0, direction="<="),
    ]
    references = reference_networks()
    print_details(speed, planner, flash, peaks)
    planner["at_bound"] = {kind: float(np.mean(found)) for kind, found in planner["at_bound"].items()}
    return finish(
        bars, arguments.json, fast_path=speed, planner=planner, flash=flash, peaks=peaks, references=references
    )


# -- reference networks


def reference_networks() -> list[dict[str, Any]]:
    """Print and return parameters and MACs of the public networks, ours beside the published ones."""
    names = {"parameters": 11, "published": 11, "off by": 6, "M MACs": 9, "M published": 11, "off  by": 6}
    print(f"{'network':24}", *(f"{name:>{width}}" for name, width in names.items()))
    found = []
    for known in REFERENCES:
        workload = lower(known.make())
        parameters, macs = counts.parameters(workload), counts.macs(workload)
        if known.without_classifier:
            macs -= counts.segment_macs(workload.segments[-1])
        rounded = parameters if known.digits is None else round(parameters / 1e6, known.digits) * 1e6
        million = round(macs / 1e6, known.macs_digits)
        off = (int(rounded - known.parameters), round(million - known.million_macs, 1))
        print(
            f"{known.name:24} {parameters:11,} {known.parameters:11,.0f} {off[0]:6} {macs / 1e6:9.3f} "
            f"{known.million_macs:11g} {off[1]:7g}  {known.source}"
        )
        found.append(
            {"name": known.name, "parameters": parameters, "published": known.parameters, "macs": macs,
             "published_million_macs": known.million_macs, "source": known.source}
        )  # fmt: skip
    return found


# -- the fast path


def tables_of(space: MixedSpace) -> tuple[CostTables, AdditiveLatency]:
    """Return tables of four prices, and the latency model one of them adds up."""
    drawn = [lower(decode(space, row)) for row in sample(space, 50, np.random.default_rng(1))]
    names = sorted({name for workload in drawn for item in workload.segments for name in segment_features(item, 8)})
    model = AdditiveLatency(
        base_ms=0.02,
        prices={name: 1e-7 * (number + 1) for number, name in enumerate(names)},
        lanes=8,
        left_out=np.zeros(1),
        seen=frozenset(),
        range_ms=(0.0, 1.0),
    )
    prices = {
        "macs": Price(counts.segment_macs),
        "parameters": Price(counts.segment_parameters),
        "peak": Price(lambda segment: memory.segment_peak_bytes(quantize_segment(segment, PLAN)), "max"),
        "latency": Price(model.segment_ms),
    }
    return CostTables(space, prices), model


def fast_path_speed() -> dict[str, Any]:
    """Return look-ups a CPU second: median, least and greatest of the passes, and what filling the tables took."""
    space = MixedSpace()
    tables, _ = tables_of(space)
    rows = sample(space, ROWS, np.random.default_rng(0))
    filling = time.process_time()
    tables(rows)
    filling = time.process_time() - filling
    rates = []
    for _ in range(PASSES):
        start = time.process_time()
        tables(rows)
        rates.append(ROWS / (time.process_time() - start))
    return {"median": float(np.median(rates)), "least": min(rates), "greatest": max(rates), "filling_cpu_s": filling}


def fast_path_equal() -> int:
    """Return how many random networks cost the same by tables and one by one."""
    space = MixedSpace()
    tables, model = tables_of(space)
    rows = sample(space, EQUAL, np.random.default_rng(2))
    found = tables(rows)
    equal = 0
    for number, row in enumerate(rows):
        raw = lower(decode(space, row))
        exact = (
            found["macs"][number] == counts.macs(raw)
            and found["parameters"][number] == counts.parameters(raw)
            and found["peak"][number] == memory.peak_bytes(with_precision(raw, PLAN))
        )
        latency_ms = float(model.predict([raw]).mean_ms[0]) - model.base_ms
        equal += exact and math.isclose(found["latency"][number], latency_ms, rel_tol=1e-9)
    return equal


# -- the planner


def planner_shares() -> dict[str, Any]:
    """Return for every kind of network which plans meet the bound, and how small graphs compare with the best arena."""
    rng = np.random.default_rng(3)
    kinds: dict[str, Sequence[Workload]] = {
        "mixed": drawn_from(MixedSpace(), rng),
        "DenseNet and GhostNet": [lower(item) for item in islice(dense_and_ghost(rng), EACH)],
        "NAS-Bench-201": drawn_from(SEARCH_SPACES.get("nasbench201")(), rng),
        "hybrid": drawn_from(SEARCH_SPACES.get("hybrid")(), rng),
    }
    at_bound = {
        kind: [plan_memory(with_precision(item, PLAN)).is_optimal for item in items] for kind, items in kinds.items()
    }
    graphs = [random_graph(rng, int(rng.integers(4, 31))) for _ in range(EACH)]
    small = [random_graph(rng, int(rng.integers(4, SMALL + 1))) for _ in range(EACH)]
    at_bound["random graphs"] = [plan_memory(graph).is_optimal for graph in graphs]
    tiny = [graph for graph in graphs if len(graph.segments[0].ops) < SMALL] + small
    best = [(plan_memory(graph), *exhaustive(graph)) for graph in tiny]
    return {
        "at_bound": at_bound,
        "exhaustive": {
            "graphs": len(best),
            "plan is the best arena": sum(plan.arena_bytes == arena for plan, arena, _ in best),
            "bound equals bytes alive": sum(plan.bound_bytes == alive for plan, _, alive in best),
            "best arena is above the bound": sum(arena > alive for _, arena, alive in best),
        },
    }


def drawn_from(space: SearchSpace, rng: np.random.Generator) -> list[Workload]:
    """Return random networks of a space."""
    return [lower(decode(space, row)) for row in sample(space, EACH, rng)]


def dense_and_ghost(rng: np.random.Generator) -> Iterator[Architecture]:
    """Yield DenseNets of random growth and depths and GhostNets of random width, in turn."""
    while True:
        depths = tuple(int(depth) for depth in rng.integers(2, 9, 3))
        growth = int(rng.integers(2, 9)) * 4
        yield densenet(
            growth=growth, depths=depths, stem_width=2 * growth, classes=10, input_shape=(3, 32, 32), stem_stride=1
        )
        side = int(rng.choice([32, 64, 96]))
        yield ghostnet(width=float(rng.uniform(0.25, 1.3)), classes=10, input_shape=(3, side, side))


def random_graph(rng: np.random.Generator, tensors: int) -> Workload:
    """Return a graph of so many tensors in which each reads one to three of the four before it, of random sizes."""
    sizes = rng.integers(1, 4096, tensors)
    values = [Value(number, (1, int(size)), "uint8") for number, size in enumerate(sizes)]
    ops = []
    for number in range(1, tensors):
        recent = np.arange(max(0, number - 4), number)
        read = rng.choice(recent, min(len(recent), int(rng.integers(1, 4))), replace=False)
        inputs = tuple(values[index] for index in sorted({*map(int, read), number - 1}))
        ops.append(Op("concat", inputs, (values[number],), attributes=(("axis", 1),)))
    return Workload((Segment(values[0], values[-1], tuple(ops)),), ("",))


def exhaustive(graph: Workload) -> tuple[int, int]:
    """Return the smallest arena of all placements, and the most bytes alive at once, counted byte by byte.

    In the order of their addresses in a best placement, giving every buffer its lowest free address never places one
    higher; so trying all orders, less those that are already too large, finds a best one.
    """
    segment = graph.segments[0]
    buffers = memory.live_buffers(segment, alignment=1)
    alive = np.zeros(len(segment.ops) + 1, dtype=np.int64)
    for buffer in buffers:
        alive[buffer.first : buffer.last + 1] += buffer.num_bytes
    best = [sum(buffer.num_bytes for buffer in buffers)]

    def place(left: frozenset[int], placed: tuple[tuple[int, int], ...], top: int) -> None:
        if top >= best[0]:
            return
        if not left:
            best[0] = top
        for number in left:
            start = lowest(buffers, placed, number)
            place(left - {number}, (*placed, (number, start)), max(top, start + buffers[number].num_bytes))
            if best[0] == alive.max():
                return

    place(frozenset(range(len(buffers))), (), 0)
    return best[0], int(alive.max())


def lowest(buffers: Sequence[Buffer], placed: Sequence[tuple[int, int]], number: int) -> int:
    """Return the lowest address at which a buffer meets none of those placed."""
    start = 0
    for offset, end in sorted(
        (offset, offset + buffers[other].num_bytes)
        for other, offset in placed
        if buffers[other].overlaps(buffers[number])
    ):
        if offset - start >= buffers[number].num_bytes:
            break
        start = max(start, end)
    return start


# -- flash and published peaks


def flash_errors() -> dict[str, Any]:
    """Return how far counted flash is from the tensors of int8 files, in percent."""
    whole, blocks, spent = [], [], 0.0
    drawn = {name: np.random.default_rng(zlib.crc32(name.encode())) for name in SEARCH_SPACES.names()}
    while len(whole) < FILES:
        for name, rng in drawn.items():
            space = SEARCH_SPACES.get(name)()
            workload = lower(decode(space, sample(space, 1, rng)[0]))
            model = int8_model(workload, plan=PLAN)
            if model.ByteSize() < 100_000 or len(whole) == FILES:
                continue
            stored = sum(
                math.prod(item.dims) * numpy_helper.to_array(item).itemsize for item in model.graph.initializer
            )
            start = time.process_time()
            counted = stored_bytes(workload, PLAN)
            spent += time.process_time() - start
            whole.append(100 * (counted / stored - 1))
            blocks.append(100 * (counts.weight_bytes(with_precision(workload, PLAN)) / stored - 1))
    return {
        "networks": len(whole),
        "whole network": spread(whole),
        "sum over blocks": spread(blocks),
        "cpu_ms_per_network": 1e3 * spent / len(whole),
    }


def spread(errors: Sequence[float]) -> dict[str, float]:
    """Return the median and the greatest absolute error."""
    sizes: npt.NDArray[np.float64] = np.abs(errors)
    return {"median": float(np.median(sizes)), "greatest": float(sizes.max())}


def peak_differences() -> dict[str, Any]:
    """Return peaks by MCUNet's formula beside what the block lists give, and beside TinyEngine's SRAM."""
    networks = {}
    for variant, (side, stem, rows) in NETWORKS.items():
        workload = with_precision(lower(mcunet(variant)), PLAN)
        counted, listed = memory.mcunet_peak_bytes(workload), formula(side, stem, rows)
        networks[variant] = {
            "counted": counted,
            "block list": listed,
            "difference_percent": 100 * abs(counted / listed - 1),
            "counted in place": memory.mcunet_peak_bytes(workload, in_place=True),
            "tiny_engine_kb": TINY_ENGINE_KB[variant],
        }
    paper = memory.mcunet_peak_bytes(with_precision(lower(mobilenet_v2()), PLAN), in_place=True)
    differences = [float(item["difference_percent"]) for item in networks.values()]
    of_paper = 100 * abs(paper / (1372 * 1024) - 1)
    return {"networks": networks, "mobilenet_v2": paper, "greatest": max(*differences, of_paper)}


def formula(side: int, stem: int, rows: Sequence[tuple[int, int, int, int]]) -> int:
    """Evaluate MCUNet's formula on a block list, without a workload."""
    here, width = side // 2, stem
    sums = [3 * side**2 + stem * here**2]
    for number, (out, hidden, _kernel, stride) in enumerate(rows):
        there = -(-here // stride)
        kept = width * here**2 if stride == 1 and width == out and number else 0
        sums += [width * here**2 + hidden * here**2] if number else []
        sums += [hidden * here**2 + hidden * there**2 + kept, (hidden + out) * there**2]
        width, here = out, there
    return max(sums)


def print_details(speed: dict[str, Any], planner: dict[str, Any], flash: dict[str, Any], peaks: dict[str, Any]) -> None:
    """Print what stands behind the bars."""
    print(
        f"fast path: {speed['median']:.3g} networks a CPU second ({speed['least']:.3g} to {speed['greatest']:.3g} in "
        f"{PASSES} passes), filling the tables took {speed['filling_cpu_s']:.1f} s once"
    )
    for kind, found in planner["at_bound"].items():
        print(f"planner, {kind}: {sum(found)} of {len(found)} at the bound")
    print(
        "planner, exhaustive search: " + ", ".join(f"{name} {count}" for name, count in planner["exhaustive"].items())
    )
    for kind in ("whole network", "sum over blocks"):
        print(f"flash, {kind}: median {flash[kind]['median']:.2f} %, greatest {flash[kind]['greatest']:.2f} %")
    print(f"flash: {flash['cpu_ms_per_network']:.1f} ms of CPU a network")
    print(f"{'network':12}{'formula, B':>12}{'block list':>12}{'in place, B':>13}{'TinyEngine SRAM':>17}")
    for name, item in peaks["networks"].items():
        tiny = f"{item['tiny_engine_kb']} kB"
        print(f"{name:12}{item['counted']:12,}{item['block list']:12,}{item['counted in place']:13,}{tiny:>17}")
    print(f"MobileNetV2 at 224: {peaks['mobilenet_v2'] / 1024:.0f} kB, the paper prints 1372 kB")


if __name__ == "__main__":
    raise SystemExit(main())
