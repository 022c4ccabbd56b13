import pytest
import torch

from search_spaces.build import build, slice_weights
from search_spaces.errors import SpaceError
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.space import decode, values


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_equal_seeds_give_equal_weights_and_leave_the_global_state():
    architecture = mobilenet_v2(width=0.35, classes=4, input_shape=(3, 32, 32))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = (state(build(architecture, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_module_names_follow_stage_and_block():
    names = dict(build(mobilenet_v2(width=0.35, classes=4, input_shape=(3, 32, 32))).named_modules())
    assert "stages.2.1.depthwise.conv" in names


def test_sliced_network_holds_leading_channels_and_kernel_centres():
    space = MixedSpace(
        families=("mobilenet",), widths=((8, 16), (16, 24)), depths=(1, 2), se=(False,), activations=("relu",)
    )
    options = {choice.name: choice.options for choice in space.choices}
    big = build(space.decode({name: found[-1] for name, found in options.items()}), seed=3)
    small = build(space.decode({name: found[0] for name, found in options.items()}), seed=4)
    assert slice_weights(big.state_dict(), small) == ()
    wide = big.stages[1][0].depthwise.conv.weight
    narrow = small.stages[1][0].depthwise.conv.weight
    assert narrow.shape[2:] == (3, 3)
    assert wide.shape[2:] == (5, 5)
    assert torch.equal(narrow, wide[: len(narrow), :, 1:4, 1:4])
    assert torch.equal(small.stages[0][0].norm.running_var, big.stages[0][0].norm.running_var)


def test_slicing_from_a_smaller_network_is_refused_or_reported(rng):
    small = build(mobilenet_v2(width=0.35, classes=4, input_shape=(3, 32, 32)))
    large = build(mobilenet_v2(width=0.5, classes=4, input_shape=(3, 32, 32)))
    before = state(large)
    with pytest.raises(SpaceError, match="needs at least"):
        slice_weights(small.state_dict(), large)
    kept = slice_weights(small.state_dict(), large, strict=False)
    assert "stages.3.0.expand.conv.weight" in kept
    assert torch.equal(before["stages.3.0.expand.conv.weight"], large.state_dict()["stages.3.0.expand.conv.weight"])


def test_random_networks_build_and_run(rng):
    space = MixedSpace(classes=5)
    for _ in range(5):
        row = [int(rng.integers(len(choice.options))) for choice in space.choices]
        network = build(decode(space, row)).eval()
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
        assert len(values(space, row)) == len(space.choices)
