import pytest
import torch

from nas.train.checkpoint import save_network
from nas.train.given import given_network, given_weights, start_from
from search_spaces.build import build
from search_spaces.errors import ConfigError, RunError
from search_spaces.mobilenet_v2 import mobilenet_v2
from tests.nas.train.tiny import tiny
from tests.search_spaces.test_published import SHAPE, TvV2, seeded


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A public checkpoint's file and the plain network it belongs to."""
    network = seeded(TvV2)
    path = tmp_path_factory.mktemp("public") / "mobilenet_v2.pth"
    torch.save(network.state_dict(), path)
    return path, network


def test_a_network_of_ours_starts_from_a_public_checkpoint(public):
    path, plain = public
    network = build(mobilenet_v2(classes=10, input_shape=(3, 32, 32)), seed=0)
    told = start_from(network, path)
    assert torch.equal(network.stages[0][0].conv.weight, plain.state_dict()["features.0.0.weight"])
    assert told.startswith(f"started from {path}: ")
    assert told.endswith("0 sliced, 2 fresh")  # the classifier of other classes


def test_a_narrower_network_is_cut_out_of_a_public_checkpoint(public):
    path, plain = public
    network = build(mobilenet_v2(width=0.5, classes=10, input_shape=(3, 32, 32)), seed=0)
    start_from(network, path)
    assert torch.equal(network.stages[0][0].conv.weight, plain.state_dict()["features.0.0.weight"][:16])


def test_a_public_checkpoint_teaches_as_it_computes(public):
    path, plain = public
    architecture, network = given_network(path, height=SHAPE[1], width=SHAPE[2])
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(images), plain(images), atol=1e-5)
    assert architecture.input_shape == SHAPE
    assert not network.training


def test_a_file_of_ours_says_itself_which_network_it_holds(tmp_path):
    ours = build(tiny(), seed=4).eval()
    save_network(tmp_path / "ours.safetensors", tiny(), ours)
    architecture, network = given_network(tmp_path / "ours.safetensors", height=99, width=99)
    assert architecture == tiny()
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_a_network_that_nothing_fits_keeps_its_random_weights_and_says_so(tmp_path):
    torch.save({"elsewhere.weight": torch.zeros(8, 1, 3, 3)}, tmp_path / "other.pth")
    network = build(tiny(), seed=4)
    told = start_from(network, tmp_path / "other.pth")
    assert told == f"started from random weights: {tmp_path / 'other.pth'} holds none that fit"
    expected = build(tiny(), seed=4).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, path)
    assert given_weights(path)["a"].shape == (3,)
    torch.save({"a": torch.zeros(500)}, path)
    assert given_weights(path)["a"].shape == (500,)


def test_a_missing_file_and_one_of_no_known_network_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        given_weights(tmp_path / "absent.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(RunError):
        given_network(tmp_path / "a.pth", height=8, width=8)


@pytest.mark.parametrize("read", [given_weights, lambda path: given_network(path, height=32, width=32)])
def test_a_public_checkpoint_that_lacks_a_tensor_is_told_by_its_name(read, public, tmp_path):
    weights = dict(public[1].state_dict())
    del weights["features.5.conv.0.0.weight"]
    torch.save(weights, tmp_path / "v2.pth")
    told = r"v2\.pth looks like torchvision's MobileNetV2 x1, but features\.5\.conv\.0\.0\.weight is missing"
    with pytest.raises(ConfigError, match=told):
        read(tmp_path / "v2.pth")


def test_a_teacher_of_no_known_network_is_told_with_a_tensor_of_it(tmp_path):
    torch.save({"foo.0": torch.zeros(3)}, tmp_path / "foo.pth")
    with pytest.raises(
        RunError, match=r"foo\.pth does not say which network it holds, and its 1 tensors, such as 'foo"
    ):
        given_network(tmp_path / "foo.pth", height=8, width=8)
