"""A run that starts from given weights: what they were worth stands beside the same training from random ones."""

import pytest
import torch

from nas.config import load_config
from nas.pipeline.main import run
from nas.pipeline.searching import largest_network
from nas.pipeline.setup import fit_space, load_run_task
from nas.report import render
from nas.results import RunResults
from nas.train import train
from nas.train.checkpoint import save_network
from search_spaces.build import build
from search_spaces.errors import ConfigError
from tests.nas.report.reading import Page

RUN = """
seed = 3
workers = 1
[task]
type = "digits"
[data]
height = 16
width = 16
color = "grey"
[space]
type = "mixed"
widths = [[8], [8, 16], [16, 24]]
strides = [1, 2, 2, 1]
depths = [1]
head_widths = [32]
[device]
name = "plain"
backend = { type = "memory" }
[search]
trials = 4
batch = 2
startup = 2
rungs = { epochs = [1], keep = 0.5 }
[train]
epochs = 2
[pipeline]
finalists = 1
attempts = 1
baselines = ["shufflenet_v2"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrained")


@pytest.fixture(scope="module")
def results(folder):
    path = folder / "run.toml"
    path.write_text(RUN)
    config = load_config(path)
    task = load_run_task(config, folder)
    network = largest_network(fit_space(config.space, task), seed=0)
    trained = train(
        build(network, seed=0), task, config.train.replace(epochs=8), seed=0, folder=folder / "large", key=network.key
    )
    save_network(folder / "large.safetensors", network, trained.module)
    path.write_text(RUN.replace("[train]", '[train]\ninit = "large.safetensors"'))
    return run(load_config(path), folder / "run", store=folder / "devices")


@pytest.fixture
def searched(results):
    return next(known for known in results.contenders if known.family == "search")


def test_given_weights_are_worth_something_and_the_gain_is_the_difference(searched):
    given, scratch, gain = (searched.starts[name] for name in ("pretrained", "from_scratch", "gain"))
    assert given.value > scratch.value
    assert gain.value == pytest.approx(given.value - scratch.value, abs=1e-12)
    assert gain.lower <= gain.value <= gain.upper
    assert given.source == scratch.source == gain.source == "validation split, 269 images"


def test_what_ships_is_the_network_that_started_from_the_given_weights(searched):
    assert searched.starts["pretrained"].value == searched.files[0].figures["metric"].value
    assert any(note.startswith("started from ") for note in searched.notes)


def test_hand_made_networks_have_no_second_training(results, folder):
    by_hand = next(known for known in results.contenders if known.family != "search")
    assert by_hand.starts == {}
    assert len(list((folder / "run" / "candidates").glob("*/00-from-scratch"))) == 1


def test_the_report_shows_both_starts(results):
    text = Page(render(results)).text
    assert "from the weights given" in text
    assert "from random weights" in text


def test_starts_survive_the_disk(results, folder):
    assert RunResults.load(folder / "run" / "results.json").contenders == results.contenders


def test_weights_that_fit_no_network_of_the_space_end_the_run_before_anything_is_trained(folder, tmp_path):
    torch.save({"elsewhere.weight": torch.zeros(8, 1, 3, 3)}, tmp_path / "other.pth")
    path = tmp_path / "run.toml"
    path.write_text(RUN.replace("[train]", '[train]\ninit = "other.pth"'))
    with pytest.raises(ConfigError, match=r"train\.init: .*other\.pth starts none of 16 random networks of the space"):
        run(load_config(path), tmp_path / "run", store=folder / "devices")
    assert not (tmp_path / "run" / "candidates").exists()
