"""Fashion-MNIST on a third of MobileNetV2's latency: three searches from images to a checked file.

    python examples/benchmarks/fashion.py --data ../shared/data/vision/fashion_mnist.npz --json fashion.json

Takes about an hour on 2 cores; stopped, the same command goes on. The yardstick is MobileNetV2-1.0 with its original
strides (total 32), 10 classes, 28 px, trained one epoch so that its int8 file fuses, exported and quantized by the same
code; the faster of its two files counts. Its latency is measured first, the budget of the searches is a third of it,
and at the end all winners are timed interleaved with it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish

from latency_models.backends.local import Local
from nas.candidate import Candidate
from nas.compress.quantize import Quantize
from nas.config import load_config
from nas.export.onnx import OnnxExporter
from nas.pipeline.main import run
from nas.pipeline.setup import load_run_task
from nas.protocols import ExportContext, StageContext
from nas.results import RunResults
from nas.run import read_json, write_json
from nas.task import Task
from nas.train import TrainOptions, train
from search_spaces.build import build
from search_spaces.lowering import lower
from search_spaces.mobilenet_v2 import mobilenet_v2

MARGIN = 0.92
"""Share of the third that the searches may use: both sides of the ratio are measured, in another hour."""

CONFIG = """
seed = {seed}

[task]
type = "npz"
path = "{data}"

[data]
height = 28
width = 28
color = "grey"
augment = ["flip_horizontal"]

[space]
type = "mixed"
widths = [[8, 16, 24], [16, 24, 32], [24, 32, 48, 64], [32, 48, 64, 96]]
strides = [1, 2, 1, 2, 2]
depths = [1, 2, 3]
head_widths = [64, 128, 256]

[device]
name = "this-machine"
backend = {{ type = "local", threads = 1 }}

[budget]
latency_ms = {latency_ms}

[search]
trials = 20
batch = 4
startup = 10
rungs = {{ epochs = [1, 3], keep = 0.5 }}

[evaluator]
type = "training"
images = 20_000

[train]
epochs = {epochs}
validate_every = 5

[[stages]]
type = "quantize"

[pipeline]
finalists = 2
attempts = 4
baselines = []
"""


def yardstick(task: Task, folder: Path) -> list[Path]:
    """Train MobileNetV2-1.0 one epoch and return its float32 and int8 files."""
    done = folder / "done.json"
    if not done.exists():
        network = mobilenet_v2(classes=len(task.classes), input_shape=task.preprocessing.input_shape)
        options = TrainOptions(epochs=1)
        trained = train(
            build(network, seed=0), task, options, seed=0, folder=folder / "training", key=network.key,
            progress=lambda label, share: print(f"\rMobileNetV2: {label} {share:.0%} ", end="", flush=True),
        )  # fmt: skip
        candidate = Candidate(architecture=network, module=trained.module, preprocessing=task.preprocessing)
        context = StageContext(train=options, seed=0, folder=folder / "stage", predict_ms=lambda _workload: 0.0)
        quantized = Quantize().apply(candidate, task, context)
        OnnxExporter().export(quantized, task, folder / "export", ExportContext(opset=18, ir_version=8))
        write_json(done, {"operators": len(list(lower(network)))})
    return [folder / "export" / "model.onnx", folder / "export" / "model.int8.onnx"]


def main() -> int:
    """Measure the yardstick, search with three seeds, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/vision/fashion_mnist.npz"))
    parser.add_argument("--runs", type=Path, default=Path("runs/fashion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.data.exists():
        print(f"{options.data} is not there; say --data")
        return 2
    folder = options.runs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    backend = Local()

    def config_of(seed: int, latency_ms: float) -> Path:
        path = folder / f"seed{seed}.toml"
        text = CONFIG.format(seed=seed, data=options.data.resolve(), latency_ms=latency_ms, epochs=options.epochs)
        path.write_text(text)
        return path

    files = yardstick(load_run_task(load_config(config_of(0, 1.0)), folder / "data"), folder / "mobilenet_v2")
    budget = folder / "budget.json"
    if not budget.exists():
        timed = [timing.latency_ms for timing in backend.measure(files, files[0])]
        print(f"\nMobileNetV2-1.0 at 28 px: float32 {timed[0]:.4f} ms, int8 {timed[1]:.4f} ms")
        write_json(budget, {"float32_ms": timed[0], "int8_ms": timed[1], "latency_ms": MARGIN * min(timed) / 3.0})
    latency_ms = round(float(read_json(budget)["latency_ms"]), 5)

    results: list[RunResults] = []
    for seed in range(options.seeds):
        target = folder / f"seed{seed}"
        if not (target / "results.json").exists():
            print(f"\nseed {seed}: latency at most {latency_ms} ms", flush=True)
            run(load_config(config_of(seed, latency_ms)), target, store=folder / "devices",
                progress=lambda label, share: print(f"\r{label} {share:.0%}   ", end="", flush=True))  # fmt: skip
        results.append(RunResults.load(target / "results.json"))

    winners = [next(known for known in result.contenders if known.name == result.winner) for result in results]
    paths = [folder / f"seed{seed}" / winner.files[0].file for seed, winner in enumerate(winners)]
    timed = [timing.latency_ms for timing in backend.measure([*files, *paths], files[0])]
    reference = min(timed[:2])
    ratios = [latency / reference for latency in timed[2:]]
    accuracies = [winner.files[0].figures["test_metric"].value for winner in winners]
    print(f"\nMobileNetV2-1.0: float32 {timed[0]:.4f} ms, int8 {timed[1]:.4f} ms (measured, interleaved)")
    print(f"{'seed':>4} {'ships':>8} {'ms':>8} {'ratio':>7} {'test':>7} {'parameters':>11} {'MACs':>11}")
    rows = []
    for seed, (winner, latency, ratio, accuracy) in enumerate(zip(winners, timed[2:], ratios, accuracies, strict=True)):
        figures = winner.files[0].figures
        rows.append({"seed": seed, "key": winner.final_key, "ships": winner.files[0].precision, "latency_ms": latency,
                     "ratio": ratio, "test_accuracy": accuracy, "parameters": figures["parameters"].value,
                     "macs": figures["macs"].value, "search_s": results[seed].seconds})  # fmt: skip
        print(f"{seed:4} {winner.files[0].precision:>8} {latency:8.4f} {ratio:7.3f} {accuracy:7.4f} "
              f"{figures['parameters'].value:11,.0f} {figures['macs'].value:11,.0f}")  # fmt: skip
    bars = [
        Bar(name="fashion_latency_ratio", value=float(max(ratios)), unit="x", bar=1 / 3, direction="<="),
        Bar(name="fashion_test_accuracy", value=float(np.mean(accuracies)), unit="share", bar=0.91, direction=">="),
    ]
    return finish(bars, options.json, rows=rows, yardstick_ms={"float32": timed[0], "int8": timed[1]})


if __name__ == "__main__":
    raise SystemExit(main())
