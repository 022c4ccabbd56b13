"""A plain torch network priced, and sent through the stages that can take it.

    python examples/bring_your_own_model.py        about 1 minute on one core

Expected: costs counted from a recording, prune refused in one sentence since it needs a network of blocks, distill and
quantize done, two ONNX files whose numbers were compared with the network's. Any module works whose operators are in
the vocabulary; one that uses another is refused by `record`, which names it.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from nas.candidate import Candidate
from nas.compress import Distill, Prune, Quantize
from nas.data import DataOptions, load_task
from nas.data.digits import Digits
from nas.export import OnnxExporter
from nas.metrics import interval
from nas.protocols import StageContext
from nas.train import TrainOptions, predictions, save_network, train
from search_spaces import counts, memory
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import build
from search_spaces.errors import ConfigError
from search_spaces.lowering import record
from search_spaces.precision import QuantizationPlan, with_precision


class Plain(nn.Module):
    """Somebody's network: nothing of this library in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.wide(x + self.depthwise(x))
        return self.head(x.mean((2, 3)))


def price(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Print what the network costs, counted from a recording of one forward pass."""
    raw = record(network, shape)
    shipped = with_precision(raw, QuantizationPlan())
    print(
        f"{counts.macs(raw):,} MACs, {counts.parameters(raw):,} parameters, {counts.weight_bytes(shipped):,} B of flash"
    )
    plan = memory.plan_memory(shipped)
    print(f"peak memory in int8: bound {plan.bound_bytes:,} B, planned arena {plan.arena_bytes:,} B", end="")
    print(f", bound with depthwise in place {memory.peak_bytes(shipped, in_place=True):,} B")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, help="Where files go; a folder of its own by default.")
    given = parser.parse_args(arguments)
    folder = given.out or Path(tempfile.mkdtemp(prefix="own-model-"))
    task = load_task(Digits(), DataOptions(height=32, width=32, color="grey"), cache_dir=folder / "data")
    options = TrainOptions(epochs=given.epochs)

    torch.manual_seed(0)
    network = Plain()
    price(network, task.preprocessing.input_shape)
    trained = train(network, task, options, seed=0, folder=folder / "training").module
    candidate = Candidate(architecture=None, module=trained, preprocessing=task.preprocessing)

    blocks = (Conv(width=16, stride=2), InvertedResidual(width=24, hidden=64, stride=2), Classifier(classes=10))
    larger = Architecture(task.preprocessing.input_shape, (blocks,))
    taught = train(build(larger, seed=1), task, options, seed=1, folder=folder / "teacher").module
    save_network(folder / "teacher.safetensors", larger, taught)

    stages = (Prune(target=0.7), Distill(teacher=str(folder / "teacher.safetensors"), epochs=2), Quantize())
    for stage in stages:
        name = type(stage).__name__
        context = StageContext(
            train=options,
            seed=0,
            folder=folder / name,
            predict_ms=lambda workload: counts.macs(workload) / 1e6,
            timed=False,
        )
        try:
            candidate = stage.apply(candidate, task, context)
        except ConfigError as error:
            print(f"{name}: left out: {error}")
            continue
        print(f"{name}: done{''.join(f'; {note}' for note in candidate.notes)}")

    found = predictions(candidate.module, task.validation.images, task.preprocessing)
    print(f"validation {task.metric}: {interval(task.validation.labels, found, task.metric, seed=0)}")
    for file in OnnxExporter().export(candidate, task, folder / "export").files:
        print(f"{file.path.name}: {file.num_bytes:,} B, {file.parity.reason}")


if __name__ == "__main__":
    main()
