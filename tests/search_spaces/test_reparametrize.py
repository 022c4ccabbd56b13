import pytest
import torch

from search_spaces import counts
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.build import build
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.reparametrize import deploy, is_deployed, training_form
from search_spaces.reparametrized_blocks import MobileOne, RepVGG
from search_spaces.repvgg import mobileone_s0


@pytest.fixture
def searched() -> Architecture:
    """Every case: shapes that stay and change, groups, larger kernels, one branch and several, other blocks between."""
    return Architecture(
        (3, 20, 20),
        (
            (RepVGG(width=8, stride=2), RepVGG(width=8), RepVGG(width=8, groups=4, kernel=5)),
            (Conv(width=12), MobileOne(width=12, kernel=5, branches=2), MobileOne(width=16, stride=2, branches=1)),
            (Classifier(classes=5),),
        ),
    )


def calibrated(architecture, seed=0):
    """Return the network after its batch normalizations saw data, with scales that are not one."""
    network = build(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0.0, 0.3, generator=generator)
        for _ in range(10):
            network(torch.randn(8, *architecture.input_shape, generator=generator))
    return network.eval()


def difference(architecture):
    trained = calibrated(training_form(architecture))
    deployed, weights = deploy(training_form(architecture), trained.state_dict())
    assert deployed == architecture
    shipped = build(deployed, seed=9).eval()
    shipped.load_state_dict(weights)
    x = torch.randn(8, *architecture.input_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = trained(x)
        assert expected.std() > 1e-3
        return float((shipped(x) - expected).abs().max())


def test_deployed_network_computes_what_the_trained_one_does(searched):
    assert difference(searched) <= 1e-5


def test_deployed_mobileone_s0_stays_within_the_bar():
    assert difference(mobileone_s0(classes=10, input_shape=(3, 32, 32), stem_stride=1)) <= 1e-4


def test_deployed_form_has_one_convolution_with_bias_for_each_branched_one(searched):
    assert is_deployed(searched)
    assert not is_deployed(training_form(searched))
    first = lower(searched).segments[0]
    assert [op.kind for op in first.ops] == ["conv", "relu"]
    assert counts.parameters(lower(searched)) < counts.parameters(lower(training_form(searched)))


def test_an_architecture_without_such_blocks_stays(searched):
    plain = mobilenet_v2(width=0.35, classes=4, input_shape=(3, 32, 32))
    weights = build(plain).state_dict()
    deployed, converted = deploy(plain, weights)
    assert training_form(plain) == deployed == plain
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in weights.items())


def test_deploying_changes_neither_weights_nor_the_random_state(searched):
    trained = training_form(searched)
    weights = build(trained).state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    deploy(trained, weights)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())


def test_weights_of_another_network_are_refused(searched):
    weights = build(searched).state_dict()
    with pytest.raises(SpaceError, match=r"do not fit block stages\.0\.0"):
        deploy(training_form(searched), weights)
