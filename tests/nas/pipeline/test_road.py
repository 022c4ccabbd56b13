"""The whole road on real digits, once; then what it left behind is looked at from many sides."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from latency_models.profile import Profile
from nas.config import load_config
from nas.pipeline.main import run
from nas.pipeline.setup import identity_of
from nas.results import RunResults
from nas.run import EventLog
from search_spaces.architecture import Architecture
from search_spaces.counts import macs, parameters
from search_spaces.errors import InfeasibleError, RunError
from search_spaces.lowering import lower
from tests.nas.pipeline.small import run_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("road")


@pytest.fixture(scope="module")
def results(folder):
    return run(load_config(run_file(folder)), folder / "run", store=folder / "devices")


def test_winner_is_within_the_budget_by_its_measured_figures(results):
    winner = next(known for known in results.contenders if known.name == results.winner)
    shipped = winner.files[0]
    assert shipped.figures["latency_ms"].origin == "measured"
    assert shipped.figures["latency_ms"].value <= results.budget["latency_ms"]
    assert shipped.figures["weight_bytes"].value <= results.budget["weight_bytes"]
    assert winner.meets_budget


def test_what_ships_was_run_without_a_pause_and_every_latency_names_the_level_of_its_session(results):
    figures = results.contender(results.winner).files[0].figures
    assert " runs in " in figures["sustained_ms"].source
    assert figures["session_level"].value > 0
    assert figures["session_level"].origin == "measured"


def test_winner_is_the_best_on_validation_among_those_within_the_budget(results):
    within = {known.name: known.files[0].figures["metric"].value for known in results.contenders if known.meets_budget}
    assert within[results.winner] == max(within.values())


def test_searched_finalists_were_timed_before_they_were_trained_to_the_end(results, folder):
    timed = Profile.load(folder / "run" / "confirmed.json").networks
    finalists = {known.key for known in results.contenders if known.family == "search"}
    assert finalists <= {known.architecture.key for known in timed}
    for fit in results.fits:
        of_precision = [known for known in timed if known.precision == fit.precision]
        assert len(fit.preferred_predicted_ms) == len(fit.preferred_measured_ms) == len(of_precision) > 0


def test_hand_made_network_takes_the_same_road(results):
    by_family = {known.family: known for known in results.contenders}
    assert [stage.stage for stage in by_family["ShuffleNetV2"].stages] == ["prune", "distill", "quantize"]
    assert [stage.stage for stage in by_family["search"].stages] == ["prune", "distill", "quantize"]


def test_every_stage_says_what_was_before_and_after(results):
    for known in results.contenders:
        for stage in known.stages:
            assert {"metric", "latency_ms", "file_bytes"} <= set(stage.before) & set(stage.after)
            assert stage.before["latency_ms"].origin == stage.after["latency_ms"].origin == "measured"
            assert stage.reason


def test_the_delivered_folder_says_what_the_report_says(results, folder):
    for known in results.contenders:
        delivered = (folder / "run" / known.files[0].file).parent
        manifest = json.loads((delivered / "manifest.json").read_text())
        card = (delivered / "model_card.md").read_text()
        assert manifest["model"] == Path(known.files[0].file).name
        assert manifest["precision"] == known.files[0].precision
        assert [(step["stage"], step["verdict"]) for step in manifest["history"]] == [
            (step.stage, step.verdict) for step in known.stages
        ]
        kept = [step.stage for step in known.stages if step.verdict == "kept"]
        assert f"compression stages kept: {', '.join(kept) or 'none'}." in card
        assert f"`{manifest['model']}` is the file to ship." in card
        entry = next(entry for entry in manifest["files"] if entry["name"] == manifest["model"])
        for name in ("latency_ms", "metric", "test_metric", "weight_bytes", "peak_memory_bytes"):
            assert entry["figures"][name]["value"] == known.files[0].figures[name].value


def test_a_files_metadata_name_the_stages_that_made_it(results, folder):
    for known in results.contenders:
        model = onnx.load(folder / "run" / known.files[0].file)
        stages = next(json.loads(item.value) for item in model.metadata_props if item.key == "stages")
        kept = [step.stage for step in known.stages if step.verdict == "kept"]
        assert stages[: len(kept)] == kept


def test_quantization_tells_how_far_its_file_is_from_the_network(results):
    for known in results.contenders:
        figures = known.stages[-1].figures
        assert 0.5 < figures["int8_agreement"].value <= 1.0
        assert figures["int8_relative_error"].origin == "measured"


def test_seconds_of_a_run_are_those_of_all_its_sessions(results, folder):
    kept = json.loads((folder / "run" / "seconds.json").read_text())
    assert kept["finalists"] >= round(results.seconds["finalists"], 3) > 0
    assert kept.keys() >= {"data", "probing", "search", "teacher", "finalists", "report"}


def test_more_workers_and_hours_are_no_other_configuration(tmp_path):
    config = load_config(run_file(tmp_path))
    more = dataclasses.replace(config, workers=7, train=config.train.replace(max_hours=3.0, threads=2))
    other = dataclasses.replace(config, train=config.train.replace(epochs=9))
    assert identity_of(more) == identity_of(config)
    assert identity_of(other) != identity_of(config)


def test_distillation_stands_beside_a_control_without_teacher(results):
    stage = next(stage for stage in results.contenders[0].stages if stage.stage == "distill")
    assert any("control" in name for name in stage.figures)


def test_delivered_files_compute_what_the_report_says(results, folder):
    for known in results.contenders:
        for file in known.files:
            path = folder / "run" / file.file
            onnx.checker.check_model(str(path))
            assert path.stat().st_size == file.figures["file_bytes"].value
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            assert session.get_inputs()[0].type == "tensor(uint8)"
            assert file.parity.images >= 256


def test_counts_stand_beside_an_independent_one(results):
    for known in results.contenders:
        workload = lower(Architecture.from_json(known.architecture))
        assert known.counted_by_fvcore["macs"].value == macs(workload)
        assert known.counted_by_fvcore["parameters"].value == parameters(workload)


def test_test_split_is_never_in_the_figures_that_select(results):
    for known in results.contenders:
        for file in known.files:
            assert file.figures["test_metric"].source.startswith("test split, ")
            assert "validation" in file.figures["metric"].source


def test_results_survive_the_disk(results, folder):
    again = RunResults.load(folder / "run" / "results.json")
    assert again.winner == results.winner
    assert again.contenders == results.contenders


def test_report_is_one_page_that_asks_the_network_for_nothing(results, folder):
    page = (folder / "run" / "report" / "index.html").read_text()
    assert results.winner in page
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=[\"']?https?:", without_scripts)


def test_no_network_was_trained_twice_to_the_same_rung(results, folder):
    log = EventLog.open(folder / "run" / "evaluations.jsonl")
    finished = [(event["key"], event["rung"]) for event in log.of("finished")]
    assert len(finished) == len(set(finished))
    assert len({key for key, _ in finished}) == 6


def test_same_command_again_does_nothing_and_says_the_same(results, folder):
    before = (folder / "run" / "evaluations.jsonl").read_bytes()
    weights = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*.safetensors")}
    again = run(load_config(run_file(folder)), folder / "run", store=folder / "devices")
    assert (folder / "run" / "evaluations.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*.safetensors")} == weights
    assert again.winner == results.winner


def test_device_is_measured_once(results, folder):
    profiles = list((folder / "devices").glob("*.json"))
    assert len(profiles) == 1
    assert len(json.loads(profiles[0].read_text())["networks"]) == 24


def test_run_directory_of_another_configuration_is_refused(results, folder):
    other = folder / "other"
    other.mkdir()
    config = load_config(run_file(other, latency=4.0))
    with pytest.raises(RunError, match="budget"):
        run(config, folder / "run", store=folder / "devices")


def test_budget_that_nothing_meets_names_the_limit_and_what_would_fit(results, folder, tmp_path):
    config = load_config(run_file(tmp_path, latency=0.0001))
    with pytest.raises(InfeasibleError, match="latency_ms") as caught:
        run(config, tmp_path / "run", store=folder / "devices")
    assert caught.value.exit_code == 3
    least = float(re.findall(r"\d+\.\d+", str(caught.value))[-1])
    assert 0.0001 < least < 5.0
    assert not list((tmp_path / "run").rglob("*.safetensors")), "something infeasible was trained"


def test_predictions_are_those_of_the_delivered_file(results, folder):
    winner = next(known for known in results.contenders if known.name == results.winner)
    total = np.array(winner.files[0].confusion).sum()
    assert total == results.images["test"]
    right = np.trace(np.array(winner.files[0].confusion))
    assert winner.files[0].figures["test_metric"].value == pytest.approx(right / total)
