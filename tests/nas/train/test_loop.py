import numpy as np
import pytest
import torch

from nas.protocols import quiet
from nas.task import Split
from nas.train.augment import AUGMENTATIONS
from nas.train.checkpoint import read_tensors
from nas.train.evaluate import predictions
from nas.train.loop import train
from nas.train.options import TrainOptions
from nas.train.session import TrainingDiverged
from search_spaces.build import build
from search_spaces.errors import ConfigError, DataError, RunError
from tests.nas.train.tiny import digits, state, tiny

OPTIONS = TrainOptions(epochs=4, batch_size=32, ema=0.9)


class Killed(Exception):
    pass


def kill_in_epoch(number):
    def progress(label, share):
        if label.startswith(f"epoch {number}/"):
            raise Killed

    return progress


def run(folder, *, options=OPTIONS, task=None, network=None, progress=quiet, seed=3, **arguments):
    network = build(tiny(dropout=0.2), seed=0) if network is None else network
    task = digits(augment=("shift", "cutout")) if task is None else task
    return train(network, task, options, seed=seed, folder=folder, progress=progress, **arguments)


def same(first, second):
    one, other = state(first), state(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_default_options_learn_digits(tmp_path):
    result = run(tmp_path, options=TrainOptions(epochs=15), task=digits(train=512))
    assert result.metric.value > 0.9
    assert result.metric.lower < result.metric.value < result.metric.upper
    assert result.history[-1].loss < result.history[0].loss
    assert not result.module.training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_and_continued_equals_uninterrupted_bit_for_bit(tmp_path, uninterrupted, optimizer):
    options = OPTIONS.replace(optimizer=optimizer)
    whole = uninterrupted if optimizer == "sgd" else run(tmp_path / "whole", options=options)
    with pytest.raises(Killed):
        run(tmp_path / "cut", options=options, progress=kill_in_epoch(3))
    assert (tmp_path / "cut" / "last.safetensors").exists()
    continued = run(tmp_path / "cut", options=options)
    assert same(whole.module, continued.module)
    assert [epoch.loss for epoch in whole.history] == [epoch.loss for epoch in continued.history]


def test_rung_is_a_prefix_of_the_whole_run(tmp_path, uninterrupted):
    rung = run(tmp_path, until_epoch=2)
    assert rung.epoch == 2
    assert [epoch.loss for epoch in rung.history] == [epoch.loss for epoch in uninterrupted.history[:2]]
    assert same(run(tmp_path).module, uninterrupted.module)


def test_first_last_and_rung_checkpoints_stay(tmp_path):
    run(tmp_path, until_epoch=1)
    run(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["epoch-0000.safetensors", "epoch-0001.safetensors", "epoch-0004.safetensors"]


def test_finished_rung_is_read_not_trained_again(tmp_path):
    first = run(tmp_path, until_epoch=2)
    run(tmp_path)
    again = run(tmp_path, until_epoch=2, progress=kill_in_epoch(1))
    assert same(first.module, again.module)
    assert again.history == first.history


def test_another_seed_gives_other_weights(tmp_path, uninterrupted):
    assert not same(run(tmp_path, seed=4).module, uninterrupted.module)


def test_truncated_training_is_judged_with_fresh_statistics(tmp_path):
    task = digits(train=512)
    result = run(tmp_path, task=task, until_epoch=2, options=TrainOptions(epochs=20, batch_size=32))
    raw = build(tiny(dropout=0.2))
    tensors, _ = read_tensors(result.checkpoint)
    raw.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
    lagging = np.mean(predictions(raw, task.validation.images, task.preprocessing) == task.validation.labels)
    given = predictions(result.module, task.validation.images, task.preprocessing)
    assert result.metric.value == np.mean(given == task.validation.labels)
    assert result.metric.value > lagging + 0.1


def test_stopping_within_an_epoch_keeps_the_last_whole_one(tmp_path, uninterrupted):
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > 20  # 8 steps an epoch: within the third

    result = run(tmp_path, should_stop=should_stop)
    assert result.stopped
    assert result.epoch == 2
    assert [epoch.loss for epoch in result.history] == [epoch.loss for epoch in uninterrupted.history[:2]]
    assert same(run(tmp_path).module, uninterrupted.module)


def test_damaged_checkpoint_is_named(tmp_path):
    result = run(tmp_path, until_epoch=1)
    whole = result.checkpoint.read_bytes()
    result.checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"epoch-0001.safetensors cannot be read .* remove it"):
        run(tmp_path)
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    result.checkpoint.write_bytes(bytes(flipped))
    with pytest.raises(RunError, match=r"epoch-0001.safetensors is damaged"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"options": OPTIONS.replace(learning_rate=0.01)}, "learning_rate"),
        ({"seed": 9}, "seed"),
        ({"key": "0123"}, "architecture_key"),
        ({"network": build(tiny(width=16), seed=0)}, "initial_weights"),
        ({"task": digits(train=128)}, "hash"),
        ({"task": digits(augment=("shift",))}, "augment"),
    ],
    ids=["options", "seed", "architecture", "weights", "images", "augmentation"],
)
def test_checkpoint_of_another_training_is_refused(tmp_path, change, named):
    run(tmp_path, until_epoch=1)
    with pytest.raises(RunError, match=rf"was made with {named} = .*, now {named} ="):
        run(tmp_path, **change)


@pytest.mark.parametrize(("clip_norm", "images"), [(0.0, 256), (5.0, 33)], ids=["by a huge step", "in the last step"])
def test_diverging_names_epoch_and_learning_rate(tmp_path, clip_norm, images):
    options = TrainOptions(epochs=3, batch_size=32, learning_rate=1e30, warmup=0.0, clip_norm=clip_norm)
    with pytest.raises(TrainingDiverged, match=r"not finite in epoch 1 of 3, step \d of \d, at a learning rate of"):
        run(tmp_path, options=options, task=digits(train=images))


@pytest.mark.parametrize(
    ("rate", "message"),
    [(1e39, "the loss or a weight is not finite in epoch 1 of 3, step 1 of 1"), (1e30, "no finite logits")],
    ids=["weights", "logits"],
)
def test_diverging_in_the_last_step_of_an_epoch_is_noticed(tmp_path, rate, message):
    options = TrainOptions(epochs=3, learning_rate=rate, warmup=0.0, clip_norm=0.0, validate_every=1)
    with pytest.raises(TrainingDiverged, match=message):
        run(tmp_path, options=options, task=digits(train=2))


def test_rest_of_one_image_does_not_break_batch_norm(tmp_path):
    result = run(tmp_path, task=digits(train=33), options=TrainOptions(epochs=1, batch_size=32))
    assert result.epoch == 1


def test_threads_are_as_before(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(tmp_path, until_epoch=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_global_random_state_is_as_before_and_does_not_matter(tmp_path, uninterrupted):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    result = run(tmp_path)
    assert torch.equal(torch.rand(2), expected)
    assert same(result.module, uninterrupted.module)


def test_each_epoch_augments_anew_and_a_continued_one_as_it_would_have(tmp_path, monkeypatch):
    seen = []

    def spy(pixels, generator):
        seen.append(float(torch.rand(1, generator=generator)))
        return pixels

    monkeypatch.setitem(AUGMENTATIONS, "spy", spy)
    task, options = digits(train=64, augment=("spy",)), TrainOptions(epochs=3, batch_size=32)
    run(tmp_path / "whole", task=task, options=options)
    whole, seen[:] = list(seen), []
    run(tmp_path / "parts", task=task, options=options, until_epoch=1)
    run(tmp_path / "parts", task=task, options=options)
    assert seen == whole
    assert len(set(whole)) == 6


@pytest.mark.parametrize("balance", ["class_weights", "sampler"])
def test_rare_class_gains_from_balance(tmp_path, balance):
    plain = digits(train=400)
    rare = np.flatnonzero(plain.train.labels == 3)[4:]
    keep = np.setdiff1d(np.arange(400), rare)
    split = Split("train", plain.train.images[keep], plain.train.labels[keep])
    options = TrainOptions(epochs=3, batch_size=32)

    def share_called_three(folder, task):
        result = run(folder, task=task, options=options)
        return np.mean(predictions(result.module, task.validation.images, task.preprocessing) == 3)

    unbalanced = share_called_three(tmp_path / "none", plain.replace(train=split))
    balanced = share_called_three(tmp_path / balance, plain.replace(train=split, balance=balance))
    assert balanced > unbalanced


def test_bad_tasks_and_arguments_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="unknown augmentation 'shfit': did you mean 'shift'"):
        run(tmp_path, task=digits(augment=("shfit",)))
    with pytest.raises(DataError, match="at least 2 training images"):
        run(tmp_path, task=digits(train=1))
    task = digits()
    wrong = Split("validation", task.validation.images[:, :8], task.validation.labels)
    with pytest.raises(DataError, match=r"validation images .* its preprocessing says \(16, 16, 1\)"):
        run(tmp_path, task=task.replace(validation=wrong))
    with pytest.raises(ValueError, match="until_epoch must lie in 1 to epochs = 4, got 5"):
        run(tmp_path, until_epoch=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_learns_digits_with_the_same_code(tmp_path):
    result = run(tmp_path, options=TrainOptions(epochs=15), task=digits(train=512), device="cuda")
    assert result.metric.value > 0.9
    assert next(result.module.parameters()).device.type == "cpu"
