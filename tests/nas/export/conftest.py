"""Networks are trained and exported once for all tests here: an export takes seconds."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from nas.candidate import Candidate, Exported
from nas.export.onnx import OnnxExporter
from nas.protocols import ExportContext
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.build import build
from search_spaces.precision import QuantizationPlan
from tests.nas.export.networks import NETWORKS, PER_CHANNEL, SMALL, colored_digits

RULES = ("The first rule.", "The second rule.")


@dataclass(frozen=True)
class Delivered:
    """A candidate and the files made of it."""

    candidate: Candidate
    exported: Exported


@pytest.fixture(scope="session")
def task():
    return colored_digits()


@pytest.fixture(scope="session")
def candidates(task, tmp_path_factory):
    """Trained networks by family, to be quantized."""
    made = {}
    for name, architecture in NETWORKS.items():
        network = build(architecture, seed=1)
        folder = tmp_path_factory.mktemp(name)
        train(network, task, TrainOptions(epochs=8), seed=0, folder=folder)
        made[name] = Candidate(
            architecture=architecture,
            module=network,
            preprocessing=task.preprocessing,
            quantization=QuantizationPlan(),
        )
    return made


@pytest.fixture(scope="session")
def all_delivered(task, candidates, tmp_path_factory):
    exporter, context = OnnxExporter(), ExportContext(decoding=RULES)
    return {
        name: Delivered(candidate, exporter.export(candidate, task, tmp_path_factory.mktemp(f"{name}-files"), context))
        for name, candidate in candidates.items()
    }


@pytest.fixture(params=list(NETWORKS))
def delivered(request, all_delivered):
    """Each family in turn; the files are shared, so a test that changes one copies the folder."""
    return all_delivered[request.param]


@pytest.fixture(scope="session")
def mobile(all_delivered):
    return all_delivered["mobilenet_v3"]


@pytest.fixture(scope="session")
def untrained(task):
    """A small network with normalization statistics of its own, normalized channel by channel."""
    network = build(SMALL, seed=3)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    network.get_parameter("stages.2.0.linear.weight").data.mul_(30)  # logits of ordinary size
    return Candidate(architecture=SMALL, module=network.eval(), preprocessing=PER_CHANNEL)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, 16, 24, 3), dtype=np.uint8)
