"""Checkpoints of published networks are told from their names and shapes; the networks stand in test_published."""

import pytest
import torch

from search_spaces.build import build
from search_spaces.checkpoints import recognize
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.published import load_published
from tests.search_spaces.test_published import CASES, SHAPE, TvV2, seeded

NAMES = {
    "mobilenet_v2": "MobileNetV2 x1",
    "mobilenet_v3": "MobileNetV3-small",
    "efficientnet": "EfficientNet-B0",
    "shufflenet_v2": "ShuffleNetV2 x1",
    "resnet18": "ResNet-18",
}


@pytest.mark.parametrize("case", CASES)
def test_every_published_network_is_told_from_its_file(case):
    make, architecture, layout = CASES[case]
    public = seeded(make).state_dict()
    found = recognize(public)
    assert found.name == NAMES[case.split("-")[1]]
    assert found.layout == ("torchvision" if "resnet" in case else layout)  # both libraries use one set of names
    assert found.at(*SHAPE[1:]) == architecture
    expected = load_published(architecture, public, layout=layout)
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_with_other_classes_is_told_too():
    public = seeded(TvV2).state_dict()
    public["classifier.1.weight"], public["classifier.1.bias"] = torch.ones(7, 1280), torch.ones(7)
    found = recognize(public)
    assert found.architecture.blocks[-1].classes == 7
    build(found.architecture).load_state_dict(dict(found.weights))


def test_a_narrower_network_is_told_by_its_shapes():
    narrow = build(mobilenet_v2(width=0.5)).state_dict()
    wide = build(mobilenet_v2()).state_dict()
    public = seeded(TvV2).state_dict()
    named = {name: key for key, tensor in public.items() for name in wide if _same_place(name, key, wide, tensor)}
    found = recognize({named[name]: tensor for name, tensor in narrow.items()})
    assert found.name == "MobileNetV2 x0.5"
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in narrow.items())


def _same_place(name, key, wide, tensor):
    return _ORDER[name] == key and wide[name].shape == tensor.shape


_ORDER = dict(zip(build(mobilenet_v2()).state_dict(), TvV2().state_dict(), strict=True))


@pytest.mark.parametrize(
    "state_dict",
    [
        {},
        {"fc.bias": torch.zeros(10)},
        build(mobilenet_v2(width=0.25, classes=3, input_shape=(3, 32, 32))).state_dict(),
        {name: tensor for name, tensor in TvV2().state_dict().items() if name != "features.3.conv.0.0.weight"},
    ],
    ids=["nothing", "a lone head", "a network of ours", "a tensor lacking"],
)
def test_other_weights_are_of_no_published_network(state_dict):
    assert recognize(state_dict) is None
