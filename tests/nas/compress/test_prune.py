import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from nas.candidate import Candidate
from nas.compress.channels import find_groups
from nas.compress.prune import Prune
from nas.protocols import STAGES, StageContext
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.build import build
from search_spaces.counts import macs
from search_spaces.errors import ConfigError, RunError
from search_spaces.precision import QuantizationPlan
from tests.nas.train.tiny import GREY, digits, state, tiny, varied

OPTIONS = TrainOptions(epochs=4, batch_size=32)
QUICK = Prune(target=0.6, steps=2, step_epochs=1, epochs=1, images=64)


class Killed(Exception):
    pass


def predict_ms(workload):
    return macs(workload) / 1e5


@pytest.fixture(scope="module")
def task():
    return digits()


@pytest.fixture(scope="module")
def candidate(task, tmp_path_factory):
    network = build(tiny(), seed=0)
    train(network, task, OPTIONS.replace(epochs=12), seed=0, folder=tmp_path_factory.mktemp("candidate"))
    return Candidate(architecture=tiny(), module=network, preprocessing=GREY)


def context(folder, **options):
    return StageContext(**{"train": OPTIONS, "seed": 1, "folder": folder, "predict_ms": predict_ms, **options})


@pytest.fixture(scope="module")
def pruned(candidate, task, tmp_path_factory):
    return QUICK.apply(candidate, task, context(tmp_path_factory.mktemp("pruned")))


def test_predicted_latency_meets_the_target(candidate, pruned):
    before, after = predict_ms(candidate.workload()), predict_ms(pruned.workload())
    assert after <= 0.6 * before
    assert pruned.figures["predicted_ms_before"].value == before
    assert pruned.figures["predicted_ms_after"].value == after
    assert pruned.figures["predicted_ms_after"].origin == "predicted"
    assert pruned.notes[0].startswith(f"predicted latency went from {before:.4g} to {after:.4g} ms")
    assert len(pruned.notes) == 1


def test_result_is_an_architecture_with_its_weights(pruned):
    build(pruned.architecture).load_state_dict(pruned.module.state_dict())
    assert not pruned.module.training
    logits = pruned.module(torch.zeros(1, 1, 16, 16))
    assert logits.shape == (1, 10)


def test_widths_are_multiples_of_the_alignment(candidate, pruned):
    before = {group.name: group.size for group in find_groups(candidate.architecture, alignment=8)[0]}
    for group in find_groups(pruned.architecture, alignment=1)[0]:
        assert group.size % 8 == 0
        assert group.size <= before.get(group.name, group.size)


def test_candidate_given_stays_as_it_was(candidate, task, tmp_path):
    before, architecture = state(candidate.module), candidate.architecture.to_json()
    given = candidate.replace(module=copy.deepcopy(candidate.module).train())
    QUICK.apply(given, task, context(tmp_path / "train"))
    assert all(module.training for module in given.module.modules())
    QUICK.apply(candidate, task, context(tmp_path / "eval"))
    assert all(torch.equal(before[name], tensor) for name, tensor in candidate.module.state_dict().items())
    assert candidate.architecture.to_json() == architecture
    assert candidate.figures == {}


def test_recovery_keeps_what_the_network_learned(candidate, pruned):
    assert pruned.figures["accuracy_before"].value > 0.6
    assert pruned.figures["accuracy_after"].value > 0.4  # chance is 0.1; without training on it is 0.13


@pytest.mark.parametrize("step", [1, 2])
def test_killed_and_continued_equals_uninterrupted(candidate, task, pruned, tmp_path, step):
    def kill(label, share):
        if label.startswith(f"prune {step}/2, epoch 1"):
            raise Killed

    with pytest.raises(Killed):
        QUICK.apply(candidate, task, context(tmp_path, progress=kill))
    again = QUICK.apply(candidate, task, context(tmp_path))
    assert again.architecture == pruned.architecture
    expected = state(pruned.module)
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.module.state_dict().items())
    assert again.notes == pruned.notes


@pytest.mark.parametrize(
    ("stage", "seed"), [(Prune(target=0.5, steps=2, epochs=1, images=64), 1), (QUICK, 2)], ids=["options", "seed"]
)
def test_folder_of_another_pruning_is_refused(candidate, task, tmp_path, stage, seed):
    QUICK.apply(candidate, task, context(tmp_path))
    with pytest.raises(RunError, match=r"step-1.safetensors was made with (target|seed) = "):
        stage.apply(candidate, task, context(tmp_path, seed=seed))


def test_every_block_of_the_default_space_goes_through_the_stage(task, tmp_path):
    candidate = Candidate(architecture=varied(), module=build(varied(), seed=0).eval(), preprocessing=GREY)
    stage = Prune(target=0.7, steps=1, epochs=0, images=32)
    pruned = stage.apply(candidate, task, context(tmp_path))
    assert predict_ms(pruned.workload()) <= 0.7 * predict_ms(candidate.workload())
    assert pruned.notes[1:] == (
        "left alone: output channels of 3 shuffle_unit: the block does not declare them prunable",
    )


def test_target_out_of_reach_is_said(candidate, task, tmp_path):
    pruned = Prune(target=0.05, steps=1, epochs=0, images=32).apply(candidate, task, context(tmp_path))
    assert predict_ms(pruned.workload()) > 0.05 * predict_ms(candidate.workload())
    assert "every group keeps 8 channels, and a round takes at most 50% of a group" in pruned.notes[1]


def test_nothing_changes_on_a_device_where_width_costs_nothing(candidate, task, tmp_path):
    pruned = QUICK.apply(candidate, task, context(tmp_path, predict_ms=lambda workload: 1.0))
    assert pruned.architecture == candidate.architecture
    assert all(torch.equal(candidate.module.state_dict()[k], v) for k, v in pruned.module.state_dict().items())
    assert pruned.notes[1].startswith("no more can go that saves time")
    assert not list(tmp_path.glob("step-*/epoch-*"))


def test_a_larger_target_met_by_an_earlier_round_still_gets_the_last_training(candidate, task, tmp_path):
    stage = Prune(target=0.9, steps=2, step_epochs=1, epochs=1, images=32)
    pruned = stage.apply(candidate, task, context(tmp_path, alignment=16))
    assert predict_ms(pruned.workload()) <= 0.9 * predict_ms(candidate.workload())
    assert (tmp_path / "step-2" / "epoch-0001.safetensors").exists()


def test_latency_is_predicted_at_the_precision_that_ships(candidate, task, tmp_path):
    asked = set()

    def seen_by(workload):
        asked.update(op.dtype for op in workload if op.kind == "conv")
        return predict_ms(workload)

    stage = Prune(target=0.8, steps=1, epochs=0, images=32)
    stage.apply(candidate, task, context(tmp_path / "float", predict_ms=seen_by))
    assert asked == {"float32"}
    asked.clear()
    stage.apply(candidate, task, context(tmp_path / "int8", predict_ms=seen_by, ships=QuantizationPlan()))
    assert asked == {"int8"}


def test_teacher_of_the_recovery_is_the_unpruned_network(candidate, task, pruned, tmp_path):
    alone = Prune(target=0.6, steps=2, step_epochs=1, epochs=1, images=64, distill=False)
    without = alone.apply(candidate, task, context(tmp_path))
    expected = state(pruned.module)
    assert any(
        name not in expected or not torch.equal(expected[name], tensor)
        for name, tensor in without.module.state_dict().items()
    )


def test_network_outside_the_block_vocabulary_is_refused(candidate, task, tmp_path):
    with pytest.raises(ConfigError, match="prune needs a network of blocks"):
        QUICK.apply(candidate.replace(architecture=None), task, context(tmp_path))
    assert not list(tmp_path.iterdir())


def test_progress_rises_to_one(candidate, task, tmp_path):
    shares = []
    QUICK.apply(candidate, task, context(tmp_path, progress=lambda label, share: shares.append(share)))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_stage_is_registered_and_read_strictly():
    assert STAGES.name_of(Prune) == "prune"
    adapter = TypeAdapter(Prune)
    assert adapter.validate_json('{"target": 0.5, "criterion": "l1"}') == Prune(target=0.5, criterion="l1")
    with pytest.raises(ValidationError, match="ratio"):
        adapter.validate_json('{"ratio": 0.5}')


@pytest.mark.parametrize(
    ("field", "value"),
    [("target", 1.0), ("steps", 0), ("step_epochs", -1), ("epochs", -1), ("learning_rate_factor", 0.0),
     ("distill_weight", 2.0), ("temperature", 0.0), ("images", 1), ("max_cut", 1.0)],
)  # fmt: skip
def test_values_out_of_range_name_their_field(field, value):
    with pytest.raises(ValueError, match=f"^{field} must"):
        Prune(**{field: value})
