import numpy as np
import pytest
import torch

from nas.train.inheritance import inherit
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ConfigError
from tests.nas.train.tiny import tiny


def test_equal_network_takes_everything_whole():
    source, target = build(tiny(), seed=1), build(tiny(), seed=2)
    found = inherit(target, source.state_dict())
    assert not found.sliced
    assert not found.fresh
    assert all(torch.equal(source.state_dict()[name], tensor) for name, tensor in target.state_dict().items())


def test_smaller_network_takes_leading_channels():
    source, target = build(tiny(width=16), seed=1), build(tiny(), seed=2)
    given = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    found = inherit(target, source.state_dict())
    wide, narrow = source.stages[1][0].project.conv.weight, target.stages[1][0].project.conv.weight
    assert torch.equal(narrow, wide[: narrow.shape[0], : narrow.shape[1]])
    assert "stages.1.0.project.conv.weight" in found.sliced
    assert not found.fresh
    assert str(found) == f"{len(found.whole)} tensors taken over, {len(found.sliced)} sliced, 0 fresh"
    assert all(torch.equal(given[name], tensor) for name, tensor in source.state_dict().items())


def test_classes_of_other_data_stay_fresh():
    source, target = build(tiny(classes=100), seed=1), build(tiny(), seed=2)
    before = target.stages[2][1].linear.weight.clone()
    found = inherit(target, source.state_dict())
    assert set(found.fresh) == {"stages.2.1.linear.weight", "stages.2.1.linear.bias"}
    assert torch.equal(target.stages[2][1].linear.weight, before)


def test_colour_weights_compute_the_same_for_grey_images():
    stages = tiny().stages
    source = build(Architecture((3, 16, 16), stages), seed=1).eval()
    target = build(Architecture((1, 16, 16), stages), seed=2).eval()
    inherit(target, source.state_dict())
    grey = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32))
    with torch.no_grad():
        assert torch.allclose(source(grey.expand(-1, 3, -1, -1)), target(grey), atol=1e-6)


def test_weights_of_another_family_are_refused():
    with pytest.raises(ConfigError, match=r"fit no layer .* 'features.0.weight'"):
        inherit(build(tiny()), {"features.0.weight": torch.zeros(8, 1, 3, 3)})
