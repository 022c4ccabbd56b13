"""Checkpoints of published networks are told from their names and shapes; the networks stand in test_published."""

import pytest
import torch

from search_spaces.build import build
from search_spaces.checkpoints import nearly, recognize
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"features.5.conv.0.0.weight": None}, "features.5.conv.0.0.weight is missing"),
        ({"classifier.1.bias": None}, "classifier.1.bias is missing"),
        ({"features.0.0.weight": None}, "features.0.0.weight is missing"),
        (
            {"features.5.conv.0.0.weight": (192, 32, 3, 3)},
            "features.5.conv.0.0.weight has shape (192, 32, 3, 3), expected (192, 32, 1, 1)",
        ),
        ({"extra": (3,)}, "extra is none of its tensors"),
        (
            {"features.5.conv.0.0.weight": None, "features.6.conv.0.0.weight": None},
            "features.5.conv.0.0.weight is missing, and 1 further tensors differ",
        ),
    ],
    ids=["missing", "no classes", "no stem", "shape", "extra", "two"],
)
def test_what_is_amiss_in_a_file_of_a_published_network_is_named(change, told):
    public = seeded(TvV2).state_dict()
    for name, shape in change.items():
        public.pop(name, None)
        if shape:
            public[name] = torch.zeros(shape)
    assert recognize(public) is None
    assert nearly(public) == f"looks like torchvision's MobileNetV2 x1, but {told}"


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_lacking_in_any_published_network_is_named(case):
    make, _, layout = CASES[case]
    public = seeded(make).state_dict()
    name = [name for name, tensor in public.items() if tensor.ndim == 4][3]
    del public[name]
    whose = "torchvision" if "resnet" in case else layout  # both libraries use one set of names
    assert nearly(public) == f"looks like {whose}'s {NAMES[case.split('-')[1]]}, but {name} is missing"


@pytest.mark.parametrize(
    "state_dict",
    [
        {},
        {"fc.bias": torch.zeros(10)},
        {f"foo.{number}": torch.zeros(3) for number in range(40)},
        {name: tensor for name, tensor in TvV2().state_dict().items() if name < "features.14"},
        build(mobilenet_v2(width=0.25, classes=3, input_shape=(3, 32, 32))).state_dict(),
        TvV2().state_dict(),
    ],
    ids=["nothing", "a lone head", "numbers", "half of one", "a network of ours", "a whole one"],
)
def test_other_weights_and_whole_ones_look_like_no_damaged_network(state_dict):
    assert not nearly(state_dict)


def test_a_deeper_network_of_the_same_names_is_not_taken_for_a_damaged_one():
    deeper = seeded(CASES[next(case for case in CASES if "resnet18" in case)][0]).state_dict()
    for name in [name for name in deeper if name.startswith("layer3.1")]:
        for number in range(2, 6):
            deeper[name.replace("layer3.1", f"layer3.{number}")] = deeper[name]
    assert not nearly(deeper)


def test_a_width_that_is_not_known_is_told_by_the_nearest():
    public = {
        name: tensor.new_zeros([-(-size * 3 // 4) if size > 3 else size for size in tensor.shape])
        for name, tensor in seeded(TvV2).state_dict().items()
    }
    told = nearly(public)
    assert told.startswith("has the names of torchvision's MobileNetV2 x")
    assert "the nearest variant that is known, but features.0.0.weight has shape (24, 3, 3, 3), expected (" in told
