import numpy as np
import pytest
import torch
from torch import nn

from nas.compress.channels import cut, find_groups, mask, next_sizes, verified, with_size
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual, MaxPool
from search_spaces.build import build
from search_spaces.errors import SpaceError
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.space import decode, sample
from tests.nas.train.tiny import state, tiny, varied

VARIED, _ = find_groups(varied(), alignment=8)
KNOWN = {
    "mobilenet_v2": mobilenet_v2(width=0.5, classes=7, input_shape=(3, 32, 32)),
    "mobilenet_v3": mobilenet_v3(classes=7, input_shape=(3, 32, 32)),
    "shufflenet_v2": shufflenet_v2(width=0.5, classes=7, input_shape=(3, 64, 64)),
}


def trained_like(architecture):
    """A network in which no channel is dead or equal to another, in double precision."""
    network = build(architecture, seed=1).double().eval()
    generator = torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in (
                (layer.weight, 0.5),
                (layer.bias, -0.5),
                (layer.running_mean, -0.5),
                (layer.running_var, 0.5),
            ):
                tensor.data.uniform_(low, low + 1, generator=generator)
    return network


def random_kept(architecture, groups, generator, *, steps=1):
    """Random channels that stay, for one group after the other, as far as they may shrink together."""
    kept = {}
    for group in groups:
        for size in list(next_sizes(group.size, 8))[steps - 1 :]:
            smaller = with_size(architecture, group, size)
            if smaller is not None:
                architecture = smaller
                kept[group] = sorted(generator.permutation(group.size)[:size].tolist())
                break
    return kept


def assert_pruned_equals_masked(architecture, kept):
    network = trained_like(architecture)
    smaller, weights = cut(architecture, network.state_dict(), kept)
    pruned = build(smaller).double().eval()
    pruned.load_state_dict(weights)
    x = torch.randn(3, *architecture.input_shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        whole = network(x)
        network.load_state_dict(mask(network.state_dict(), kept))
        masked = network(x)
        difference = (pruned(x) - masked).abs().max()
    assert difference <= 1e-12 * masked.abs().max()
    assert (masked - whole).abs().max() > 1e-6 * whole.abs().max()


@pytest.mark.parametrize("group", VARIED, ids=[group.name for group in VARIED])
def test_pruned_network_equals_masked_original(group, rng):
    for size in next_sizes(group.size, 8):
        assert_pruned_equals_masked(varied(), {group: sorted(rng.permutation(group.size)[:size].tolist())})


@pytest.mark.parametrize("architecture", KNOWN.values(), ids=KNOWN)
def test_all_groups_of_a_known_network_pruned_at_once_equal_masked(architecture, rng):
    groups, _ = find_groups(architecture, alignment=8)
    kept = random_kept(architecture, groups, rng)
    assert len(kept) >= 15
    assert_pruned_equals_masked(architecture, kept)


def test_groups_are_those_read_off_the_architecture():
    found = {group.name: (group.size, set(group.fields)) for group in VARIED}
    assert found == {
        # the stem feeds a block without expansion, whose output is added to its input
        "stages.0.0.width": (24, {(0, 0, "width"), (1, 0, "hidden"), (1, 0, "width")}),
        "stages.1.1.hidden": (40, {(1, 1, "hidden")}),
        # two residual blocks on one stream, the first without expansion
        "stages.1.1.width": (32, {(1, 1, "width"), (1, 2, "hidden"), (1, 2, "width"), (1, 3, "width")}),
        "stages.1.3.hidden": (64, {(1, 3, "hidden")}),
        "stages.2.0.hidden": (24, {(2, 0, "hidden")}),
        "stages.2.1.hidden": (32, {(2, 1, "hidden")}),
        "stages.2.2.hidden": (32, {(2, 2, "hidden")}),
        "stages.3.0.width": (64, {(3, 0, "width")}),
        "stages.3.1.hidden": (40, {(3, 1, "hidden")}),
    }


def test_members_of_a_hidden_group_are_made_scaled_and_read():
    group = next(group for group in VARIED if group.name == "stages.1.1.hidden")
    made = {member.name.removeprefix("stages.1.1.") for member in group.members if not member.reads}
    read = {(member.name.removeprefix("stages.1.1."), member.axis) for member in group.members if member.reads}
    assert read == {("project.conv.weight", 1), ("se.reduce.weight", 1)}
    assert {"expand.conv.weight", "depthwise.conv.weight", "se.expand.weight", "se.expand.bias"} <= made
    assert len(made) == 4 + 2 * 4


def test_what_cannot_shrink_is_left_alone_with_the_reason():
    blocks = (
        Conv(width=16, stride=2),
        InvertedResidual(width=8, hidden=32),  # 16 -> 8 input channels would make it residual
        InvertedResidual(width=8, hidden=8, expand=False),
        MaxPool(),
        Classifier(classes=3),
    )
    architecture = Architecture((1, 16, 16), (blocks,))
    groups, reasons = find_groups(architecture, alignment=8)
    assert [group.name for group in groups] == ["stages.0.1.hidden"]
    assert reasons == ("stages.0.0.width: stages.0.1 could not take the result without changing its operators",)
    groups, reasons = find_groups(architecture, alignment=4)
    assert {group.name for group in groups} == {"stages.0.0.width", "stages.0.1.hidden", "stages.0.1.width"}
    assert reasons == ()


def test_shuffle_units_keep_their_outputs_and_that_is_said():
    groups, reasons = find_groups(KNOWN["shufflenet_v2"], alignment=8)
    assert reasons == ("output channels of 16 shuffle_unit: the block does not declare them prunable",)
    assert {group.name.rsplit(".", 1)[1] for group in groups} == {"hidden", "width"}
    assert {group.name for group in groups if group.name.endswith("width")} == {"stages.0.0.width", "stages.4.0.width"}


def test_output_of_the_network_is_no_group():
    groups, reasons = find_groups(Architecture((1, 8, 8), ((Conv(width=16), Conv(width=32)),)), alignment=8)
    assert [group.name for group in groups] == ["stages.0.0.width"]
    assert reasons == ("stages.0.1.width: it is the network's output",)


def test_a_block_that_mixes_channels_within_a_group_is_found_out_by_numbers():
    grouped = Architecture(
        (1, 16, 16), ((Conv(width=32), Conv(width=64, groups=4), Conv(width=32), Classifier(classes=3)),)
    )
    groups, refused = find_groups(grouped, alignment=8)
    assert refused == (
        "stages.0.0.width: axis 1 of stages.0.1.conv.weight goes from 8 to 6 when 32 channels become 24",
    )
    good, reasons = verified(grouped, groups, alignment=8, seed=0)
    assert {group.name for group in good} == {"stages.0.2.width"}
    assert reasons == ("stages.0.1.width: its channels are mixed or reordered inside the block",)
    assert verified(varied(), VARIED, alignment=8, seed=0) == (VARIED, ())


def test_weights_and_architecture_given_stay_as_they_were(rng):
    network = build(varied(), seed=0)
    before, key = state(network), varied().key
    kept = random_kept(varied(), VARIED, rng)
    for tensors in (cut(varied(), network.state_dict(), kept)[1], mask(network.state_dict(), kept)):
        for tensor in tensors.values():
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert varied().key == key


def test_size_that_would_change_operators_is_refused():
    architecture = Architecture(
        (1, 16, 16), ((Conv(width=24), InvertedResidual(width=16, hidden=32), Classifier(classes=3)),)
    )
    group = next(group for group in find_groups(architecture, alignment=8)[0] if group.name == "stages.0.0.width")
    assert with_size(architecture, group, 16) is None
    assert with_size(architecture, group, 8) is not None
    with pytest.raises(SpaceError, match=r"stages.0.0.width cannot have 16 channels"):
        cut(architecture, build(architecture).state_dict(), {group: list(range(16))})


@pytest.mark.parametrize(("size", "expected"), [(24, [16, 8]), (20, [16, 8]), (16, [8]), (8, []), (5, [])])
def test_next_sizes_are_multiples_of_the_alignment(size, expected):
    assert list(next_sizes(size, 8)) == expected


def assert_prunes_to_the_shapes_it_builds(architecture, rng):
    groups, _ = find_groups(architecture, alignment=8)
    kept = random_kept(architecture, groups, rng, steps=int(rng.integers(1, 4)))
    with torch.device("meta"):
        weights = build(architecture).state_dict()
        smaller, pruned = cut(architecture, weights, kept)
        wanted = build(smaller).state_dict()
    assert {name: tensor.shape for name, tensor in pruned.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }
    return len(kept)


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_architectures_prune_without_shape_errors(count, rng):
    space = MixedSpace(channels=1)
    pruned = [assert_prunes_to_the_shapes_it_builds(decode(space, row), rng) for row in sample(space, count, rng)]
    assert min(pruned) >= 1


@pytest.mark.parametrize("number", range(4))
def test_random_architectures_pruned_equal_masked(number):
    rng = np.random.default_rng(number)
    space = MixedSpace(channels=1)
    architecture = decode(space, sample(space, 1, rng)[0])
    groups, _ = find_groups(architecture, alignment=8)
    assert_pruned_equals_masked(architecture, random_kept(architecture, groups, rng))


def test_tiny_network_has_groups_at_an_alignment_of_16():
    groups, _ = find_groups(tiny(), alignment=16)
    assert {group.name for group in groups} == {"stages.1.0.hidden", "stages.1.1.hidden", "stages.2.0.width"}
