import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.compress.channels import find_groups
from nas.compress.importance import channel_importance
from search_spaces.build import build
from tests.nas.train.tiny import digits, state, tiny

GROUPS, _ = find_groups(tiny(), alignment=4)
HIDDEN = next(group for group in GROUPS if group.name == "stages.1.0.hidden")
CRITERIA = ("taylor", "l1", "bn_scale", "fpgm", "random")


@pytest.fixture(scope="module")
def task():
    return digits(train=16)


@pytest.fixture
def network():
    made = build(tiny(), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in made.state_dict().items():
        if "norm.weight" in name or "running_var" in name or "linear.weight" in name:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return made


def importance(criterion, network, task, groups=GROUPS, **options):
    return channel_importance(criterion, network, groups, task, **{"images": 16, "seed": 0, **options})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_channel_gets_a_number_and_the_network_stays(criterion, network, task):
    before = state(network)
    found = importance(criterion, network, task)
    assert {name: scores.shape for name, scores in found.items()} == {g.name: (g.size,) for g in GROUPS}
    assert all((scores >= 0).all() and scores.max() > scores.min() for scores in found.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("group", GROUPS, ids=[group.name for group in GROUPS])
def test_taylor_is_the_slope_of_the_loss_as_a_channel_fades(group, network, task):
    """With one batch: |d loss / d factor| where everything that reads the channel is scaled by the factor."""
    found = importance("taylor", network, task, [group])[group.name]
    network = network.double()
    inputs = torch.from_numpy(task.preprocessing.normalize(task.train.images)).double()
    labels = torch.from_numpy(task.train.labels)

    def loss(channel, factor):
        weights = state(network)
        for member in group.members:
            if member.reads:
                weights[member.name].select(member.axis, channel).mul_(factor)
        with torch.no_grad():
            return float(F.cross_entropy(torch.func.functional_call(network, weights, (inputs,)), labels))

    for channel in (0, group.size // 2, group.size - 1):
        slope = (loss(channel, 1 + 1e-5) - loss(channel, 1 - 1e-5)) / 2e-5
        assert found[channel] == pytest.approx(abs(slope), rel=1e-3, abs=1e-7)


def test_channel_that_nobody_reads_has_no_taylor_importance(network, task):
    network.stages[1][0].project.conv.weight.data[:, 5] = 0
    scores = importance("taylor", network, task)["stages.1.0.hidden"]
    assert scores.argmin() == 5
    assert scores[5] == 0


def test_l1_and_bn_scale_by_hand(network, task):
    weights = {name.removeprefix("stages.1.0."): tensor.double() for name, tensor in network.state_dict().items()}
    made = weights["expand.conv.weight"].abs().sum((1, 2, 3)) + weights["depthwise.conv.weight"].abs().sum((1, 2, 3))
    total = made + weights["project.conv.weight"].abs().sum((0, 2, 3))
    found = importance("l1", network, task)["stages.1.0.hidden"]
    assert np.allclose(found, total / total.sum())
    scales = weights["expand.norm.weight"].abs() + weights["depthwise.norm.weight"].abs()
    found = importance("bn_scale", network, task)["stages.1.0.hidden"]
    assert np.allclose(found, scales / scales.sum())


def test_filters_near_all_others_matter_least_to_fpgm(network, task):
    weights = network.state_dict()
    for name in ("stages.1.0.expand.conv.weight", "stages.1.0.depthwise.conv.weight"):
        weights[name][7] = weights[name].mean(0)
    assert importance("fpgm", network, task)["stages.1.0.hidden"].argmin() == 7


def test_random_control_depends_on_the_seed(network, task):
    first, again, other = (importance("random", network, task, seed=seed)[HIDDEN.name] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_criterion_is_refused(network, task):
    with pytest.raises(ValueError, match=r"criterion must be taylor, .* got 'magic'"):
        importance("magic", network, task)
