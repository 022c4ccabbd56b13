"""How much of a published network's weights reaches the networks of its family's space by name and slicing."""

import math

import numpy as np
import pytest

from search_spaces.build import build, slice_weights
from search_spaces.efficientnet import efficientnet
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.resnet import resnet18
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.space import SEARCH_SPACES, decode, sample


def by_stage(name, options):
    return {f"stage{number}.{name}": option for number, option in enumerate(options, start=1)}


def by_block(name, options):
    return {f"stage{k}.block{j}.{name}": option for k, option in enumerate(options, start=1) for j in range(1, 5)}


V3 = (
    by_stage("kernel", (3, 3, 5, 3, 3, 5))
    | by_stage("expansion", (1, 3, 3, 2, 6, 6))
    | by_stage("se", (False, False, True, False, True, True))
)
OFA = by_block("kernel", (3, 5, 3, 3, 5)) | by_block("expansion", (3, 3, 3, 6, 6))
FAMILIES = {
    "mobilenet_v2": (mobilenet_v2(), {"kernel": 3}, 1.0),
    "mobilenet_v3": (mobilenet_v3("large"), V3, 1.0),
    "shufflenet_v2": (shufflenet_v2(), {"kernel": 3, "se": False}, 0.95),
    "efficientnet": (efficientnet("b0"), {"width": 1.0, "depth": 1.0, "form": "mbconv"}, 1.0),
    "resnet": (resnet18(), {"form": "basic", "kernel": 3, "depth": 2}, 0.999),
    "ofa_mobilenet_v3": (mobilenet_v3("large"), OFA, 0.97),
}
"""Published network, options of the space that are no larger than its own, and the share that is inherited then.

All other choices, widths and depths above all, take their largest option. Less than everything reaches ShuffleNetV2
(x1.0 has 116 channels in its first stage, the space 120), ResNet (the space's narrower stem needs a first shortcut)
and Once-for-All (80 x 3 hidden channels, where the published stage has 200 and 184).
"""


def largest(space, published):
    """Return the values of the space's last options, but for the published ones, named whole or without the stage."""
    chosen = {choice.name: choice.options[-1] for choice in space.choices}
    for name in chosen:
        chosen[name] = published.get(name, published.get(name.rpartition(".")[2], chosen[name]))
    return chosen


def inherited(architecture, published):
    """Return the share of parameters, in places that both have and but the classifier, that come from `published`."""
    weights, network = build(published).state_dict(), build(architecture)
    fresh = set(slice_weights(weights, network, strict=False))
    places = {place_of(name) for name in weights}
    sizes = {
        name: math.prod(parameter.shape)
        for name, parameter in network.named_parameters()
        if place_of(name) in places and ".linear." not in name
    }
    return sum(size for name, size in sizes.items() if name not in fresh) / sum(sizes.values())


def place_of(name):
    return tuple(name.split(".")[:3])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_widest_and_deepest_network_of_published_blocks_inherits_the_published_weights(family):
    published, options, share = FAMILIES[family]
    space = SEARCH_SPACES.get(family)()
    assert inherited(space.decode(largest(space, options)), published) >= share


@pytest.mark.parametrize(
    ("family", "share"), [("mobilenet_v2", 0.85), ("mobilenet_v3", 0.75), ("ofa_mobilenet_v3", 0.65)]
)
def test_random_networks_inherit_most_of_their_parameters(family, share):
    space = SEARCH_SPACES.get(family)()
    rows = sample(space, 6, np.random.default_rng(1))
    assert min(inherited(decode(space, row), FAMILIES[family][0]) for row in rows) >= share


@pytest.mark.parametrize("family", ["mobilenet_v3", "ofa_mobilenet_v3"])
def test_stages_of_the_space_are_those_of_mobilenet_v3_large(family):
    space = SEARCH_SPACES.get(family)()
    found = space.decode(largest(space, FAMILIES[family][1]))
    published = mobilenet_v3("large")
    widths = [stage[0].width for stage in published.stages[:-1]]
    assert [stage[0].width for stage in found.stages[:-1]] == widths
    assert [len(stage) for stage in published.stages] == [1, 1, 2, 3, 4, 2, 3, 2]
