from dataclasses import replace

import pytest
import torch

from nas.evaluate.training import Training
from nas.protocols import EVALUATORS, EvaluationContext
from nas.train import TrainOptions, load_weights, save_network, train
from nas.train.checkpoint import digest
from search_spaces.build import build
from search_spaces.errors import ConfigError, RunError
from tests.nas.train.tiny import digits, tiny

OPTIONS = TrainOptions(epochs=3, validate_every=1)


@pytest.fixture(scope="module")
def task():
    return digits(train=128, validation=128)


@pytest.fixture
def context(tmp_path):
    return EvaluationContext(train=OPTIONS, until_epoch=3, seed=5, folder=tmp_path / "one")


def test_it_is_registered_and_says_what_it_gives():
    evaluator = EVALUATORS.get("training")()
    assert isinstance(evaluator, Training)
    assert (evaluator.metrics, evaluator.cost) == (("metric",), 3)


def test_it_gives_what_plain_training_gives(task, context, tmp_path):
    options = OPTIONS.replace(epochs=12)
    found = Training().evaluate(tiny(), task, replace(context, train=options, until_epoch=12))
    plain = train(build(tiny(), seed=5), task, options, seed=5, folder=tmp_path / "two", key=tiny().key)
    assert found == {"metric": plain.metric}
    assert found["metric"].origin == "measured"
    assert found["metric"].value > 0.2  # a tenth is chance


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(task, context, tmp_path):
    def weights(name, seed):
        Training().evaluate(tiny(), task, replace(context, seed=seed, until_epoch=1, folder=tmp_path / name))
        return digest(load_weights(next((tmp_path / name).rglob("*.safetensors"))))

    assert weights("a", 1) == weights("b", 1)
    assert weights("a", 1) != weights("c", 2)


def test_a_promoted_candidate_goes_on_and_ends_as_one_that_was_never_stopped(task, context, tmp_path):
    whole = Training().evaluate(tiny(), task, context)
    short = replace(context, folder=tmp_path / "rungs", until_epoch=1)
    Training().evaluate(tiny(), task, short)
    asked = []
    promoted = replace(short, until_epoch=3, should_stop=lambda: bool(asked.append(1)))
    assert Training().evaluate(tiny(), task, promoted) == whole
    again = []
    finished = replace(promoted, should_stop=lambda: bool(again.append(1)))
    assert Training().evaluate(tiny(), task, finished) == whole
    assert len(asked) == 2 * 4  # two epochs of four batches, not three
    assert not again


def test_an_architecture_of_another_size_gets_its_images_at_that_size(context):
    sizes = []

    def resized(height, width):
        sizes.append((height, width))
        return digits(train=128, validation=128)

    task = digits(train=128, validation=128)
    small = task.preprocessing.__class__(height=8, width=8, color="grey")
    other = task.replace(preprocessing=small, resized=resized)
    Training().evaluate(tiny(), other, replace(context, until_epoch=1))
    assert sizes == [(16, 16)]


def test_weights_to_start_from_are_taken_over(task, context, tmp_path):
    source = build(tiny(), seed=9)
    train(source, task, TrainOptions(epochs=12), seed=0, folder=tmp_path / "source")
    save_network(tmp_path / "init.safetensors", tiny(), source)
    slow = OPTIONS.replace(learning_rate=1e-6, warmup=0.0)
    random = Training().evaluate(tiny(), task, replace(context, train=slow, until_epoch=1))
    warm = slow.replace(init=str(tmp_path / "init.safetensors"))
    started = Training().evaluate(tiny(), task, replace(context, train=warm, until_epoch=1, folder=tmp_path / "warm"))
    assert started["metric"].value > random["metric"].value + 0.2


def test_weights_that_are_not_there_are_one_sentence(task, context, tmp_path):
    options = OPTIONS.replace(init=str(tmp_path / "none.safetensors"))
    with pytest.raises(ConfigError, match=r"there is no file .*none.safetensors to take weights from"):
        Training().evaluate(tiny(), task, replace(context, train=options))


def test_stopped_before_the_first_validation_there_is_no_metric(task, context):
    with pytest.raises(RunError, match=f"{tiny().key} was stopped before its first validation"):
        Training().evaluate(tiny(), task, replace(context, should_stop=lambda: True))


def test_it_leaves_the_global_random_state_alone(task, context):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Training().evaluate(tiny(), task, replace(context, until_epoch=1))
    assert torch.equal(torch.get_rng_state(), before)
