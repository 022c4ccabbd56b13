import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.candidate import Candidate, StageRecord
from nas.run import write_json
from nas.store import (
    FACTS,
    WEIGHTS,
    load_candidate,
    load_predictions,
    read_stage_record,
    save_candidate,
    save_predictions,
)
from nas.task import Preprocessing
from search_spaces.build import build
from search_spaces.errors import NasError, RunError
from search_spaces.measurement import Measurement
from search_spaces.precision import QuantizationPlan
from tests.nas.train.tiny import tiny, varied

ACCURACY = Measurement(value=0.9, unit="1", origin="measured", lower=0.88, upper=0.92, source="validation, 128 images")


@pytest.fixture
def candidate():
    return Candidate(
        architecture=tiny(),
        module=build(tiny(), seed=3).eval(),
        preprocessing=Preprocessing(height=16, width=16, color="grey", resize="letterbox", fill=7, mean=(3.0,)),
        quantization=QuantizationPlan(activation="int8", keep_float=("stages.2.1",)),
        figures={"accuracy": ACCURACY},
        notes=("A sentence.", "Another one."),
    )


@pytest.fixture
def record():
    return StageRecord(
        stage="prune",
        options={"target": 0.8, "gate": {"max_drop": 0.01}},
        before={"metric": ACCURACY},
        after={"metric": replace(ACCURACY, value=0.89)},
        verdict="kept",
        reason="within a drop of 1.00",
        seconds=3.5,
        figures={"control": ACCURACY},
        notes=("A sentence.",),
    )


# -- candidates


@pytest.mark.parametrize("plan", [None, QuantizationPlan(), QuantizationPlan(reduce_range=True, keep_float=("a", "b"))])
def test_a_candidate_comes_back_whole(tmp_path, candidate, plan):
    given = candidate.replace(quantization=plan)
    save_candidate(tmp_path / "deep" / "00-trained", given)
    again = load_candidate(tmp_path / "deep" / "00-trained")
    assert again.architecture == given.architecture
    assert again.preprocessing == given.preprocessing
    assert again.quantization == given.quantization
    assert again.figures == given.figures
    assert again.notes == given.notes
    assert again.precision == given.precision


def test_weights_and_statistics_come_back_bit_by_bit_in_evaluation_mode(tmp_path):
    network = build(varied(), seed=1)
    network(torch.rand(4, 1, 16, 16))  # running statistics of its own
    network.eval()
    given = Candidate(
        architecture=varied(), module=network, preprocessing=Preprocessing(height=16, width=16, color="grey")
    )
    save_candidate(tmp_path, given)
    again = load_candidate(tmp_path).module
    assert not again.training
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(again(images), network(images))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_saving_again_replaces_and_leaves_nothing_beside(tmp_path, candidate):
    save_candidate(tmp_path, candidate)
    save_candidate(tmp_path, candidate.replace(notes=("new",)))
    assert load_candidate(tmp_path).notes == ("new",)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FACTS, WEIGHTS])


def test_a_folder_without_facts_is_not_whole(tmp_path, candidate):
    save_candidate(tmp_path, candidate)
    (tmp_path / FACTS).unlink()
    with pytest.raises(RunError, match=rf"{FACTS} is not there"):
        load_candidate(tmp_path)


def test_a_network_that_left_the_block_vocabulary_is_refused_before_anything_is_written(tmp_path, candidate):
    with pytest.raises(RunError, match="no architecture any more"):
        save_candidate(tmp_path / "new", candidate.replace(architecture=None))
    assert not (tmp_path / "new").exists()


def test_weights_changed_at_any_place_are_one_sentence_and_never_another_network(tmp_path, candidate):
    save_candidate(tmp_path, candidate)
    path = tmp_path / WEIGHTS
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    places = [*range(8), *range(8, header, 23), *range(header, len(whole), 701), len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(NasError, match=r"candidate\.safetensors") as error:
            load_candidate(tmp_path)
        assert "\n" not in str(error.value)
        assert error.value.exit_code == RunError.exit_code


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999], ids=str)
def test_weights_cut_short_are_one_sentence(tmp_path, candidate, share):
    save_candidate(tmp_path, candidate)
    path = tmp_path / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RunError, match=r"candidate\.safetensors cannot be read .* remove it to have it made again"):
        load_candidate(tmp_path)


def change(name, value):
    return lambda facts: {**facts, name: value}


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: {name: value for name, value in facts.items() if name != "quantization"},
        lambda facts: {name: value for name, value in facts.items() if name != "figures"},
        change("quantization", {"bits": 4}),
        change("quantization", 3),
        change("preprocessing", {"height": 16}),
        change("figures", {"accuracy": {"value": 1.0}}),
        change("figures", [1]),
        lambda _facts: [],
        lambda _facts: None,
    ],
    ids=["no plan", "no figures", "other plan", "plan", "no width", "no unit", "figures", "list", "null"],
)
def test_damaged_facts_are_one_sentence(tmp_path, candidate, damage):
    save_candidate(tmp_path, candidate)
    facts = json.loads((tmp_path / FACTS).read_text())
    write_json(tmp_path / FACTS, damage(facts))
    with pytest.raises(RunError, match=r"candidate\.json is damaged .*; remove the folder to have it made again"):
        load_candidate(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"], ids=["empty", "cut", "no text"])
def test_facts_that_are_no_json_are_one_sentence(tmp_path, candidate, content):
    save_candidate(tmp_path, candidate)
    (tmp_path / FACTS).write_bytes(content)
    with pytest.raises(RunError, match=r"candidate\.json cannot be read"):
        load_candidate(tmp_path)


# -- predictions


def test_predictions_come_back(tmp_path, rng):
    predicted = rng.integers(0, 10, 500)
    save_predictions(tmp_path / "float32.json", predicted)
    again = load_predictions(tmp_path / "float32.json")
    assert again.dtype == np.int64
    assert np.array_equal(again, predicted)


@pytest.mark.parametrize("content", ["[1, 2", "{}", "3", '["a"]', "[1.5]", "[[1]]", "[true]"])
def test_damaged_predictions_are_one_sentence(tmp_path, content):
    (tmp_path / "float32.json").write_text(content)
    with pytest.raises(RunError, match=r"float32\.json (cannot be read|is damaged)"):
        load_predictions(tmp_path / "float32.json")


# -- records of stages


def test_a_stage_record_comes_back(tmp_path, record):
    write_json(tmp_path / "record.json", record.to_dict())
    assert read_stage_record(tmp_path / "record.json") == record


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: {name: value for name, value in told.items() if name != "after"},
        lambda told: {name: value for name, value in told.items() if name != "verdict"},
        lambda told: {**told, "surprise": 1},
        lambda told: {**told, "before": [1]},
        lambda told: {**told, "before": {"metric": {"value": 1.0, "unit": "1", "origin": "guessed"}}},
        lambda _told: [],
    ],
    ids=["no figures", "no verdict", "unknown field", "list", "unknown origin", "no table"],
)
def test_a_damaged_stage_record_is_one_sentence(tmp_path, record, damage):
    write_json(tmp_path / "record.json", damage(record.to_dict()))
    with pytest.raises(RunError, match=r"record\.json is damaged .*; remove it to have it made again"):
        read_stage_record(tmp_path / "record.json")
