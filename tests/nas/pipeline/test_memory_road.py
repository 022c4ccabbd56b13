"""The road on a device of which only the memory is known: all of it, with MACs where milliseconds would be."""

import json

import onnx
import pytest

from nas.config import load_config
from nas.pipeline.checking import check_run
from nas.pipeline.main import run
from nas.report import render, summary_text
from search_spaces.architecture import Architecture
from search_spaces.lowering import lower

RUN = """
device = "stm32h743"
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
[budget]
macs = 400_000
precision = "int8"
[search]
trials = 4
batch = 2
startup = 2
rungs = { epochs = [1], keep = 0.5 }
[train]
epochs = 2
[[stages]]
type = "prune"
target = 0.9
steps = 1
step_epochs = 1
epochs = 1
gate = { max_drop = 0.9 }
[[stages]]
type = "quantize"
gate = { max_drop = 0.9 }
[pipeline]
finalists = 1
attempts = 2
baselines = []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("memory")


@pytest.fixture(scope="module")
def config(folder):
    (folder / "run.toml").write_text(RUN)
    return load_config(folder / "run.toml")


@pytest.fixture(scope="module")
def results(config, folder):
    return run(config, folder / "run", store=folder / "devices")


def test_what_ships_fits_arena_flash_and_macs(results):
    winner = results.contender(results.winner)
    figures = winner.shipped.figures
    assert winner.meets_budget
    assert winner.shipped.precision == "int8"
    assert results.budget == {"macs": 400_000, "peak_memory_bytes": 464_288, "weight_bytes": 1_300_000}
    for name, limit in results.budget.items():
        assert figures[name].origin == "counted"
        assert figures[name].value <= limit


def test_manifest_and_results_count_the_file_alike(results, folder):
    winner = results.contender(results.winner)
    candidates = folder / "run" / "candidates" / winner.key
    entries = [
        entry
        for manifest in candidates.glob("*-quantize/export/manifest.json")
        for entry in json.loads(manifest.read_text())["files"]
        if entry["precision"] == "int8"
    ]
    assert entries
    for entry in entries:
        assert entry["figures"].keys() == {"weight_bytes", "peak_memory_bytes", "macs", "parameters"}
        for name, figure in entry["figures"].items():
            assert figure == winner.shipped.figures[name].to_dict()


def test_no_channel_is_padded_for_kernels_that_the_device_lacks(results, folder):
    shipped = results.contender(results.winner)
    final = Architecture.from_json(shipped.architecture)
    widths = sorted(op.output.shape[1] for op in lower(final) if op.kind == "conv" and op.integer("groups") > 1)
    graph = onnx.load(folder / "run" / shipped.shipped.file).graph
    groups = [
        item.i for node in graph.node if node.op_type == "Conv" for item in node.attribute if item.name == "group"
    ]
    assert sorted(number for number in groups if number > 1) == widths
    assert any(width % 16 for width in widths)


def test_nothing_is_called_milliseconds(results, folder):
    assert results.fits == ()
    assert results.search.minimized == "macs"
    stored = (folder / "run" / "results.json").read_text()
    assert '"unit":"ms"' not in stored.replace(" ", "")
    for record in (folder / "run" / "candidates").rglob("record.json"):
        assert '"unit":"ms"' not in record.read_text().replace(" ", ""), record
    assert " ms" not in summary_text(results)


def test_pruning_is_driven_by_counted_macs(results):
    (prune, _) = results.contender(results.winner).stages
    before, after = (prune.figures[f"macs_{when}"] for when in ("before", "after"))
    assert {before.origin, after.origin} == {"counted"}
    assert {before.unit, after.unit} == {"MAC"}
    assert after.value == prune.after["macs"].value < before.value == prune.before["macs"].value
    assert prune.notes[0].startswith("counted MACs went from")


def test_the_report_says_that_nothing_was_timed(results):
    assert any("Nothing is known of time on the device stm32h743" in warning for warning in results.warnings)
    assert "minimized MACs" in render(results)


def test_no_profile_is_written(results, folder):
    assert list((folder / "devices").glob("*")) == []


def test_check_says_that_macs_are_counted(config, results, folder):
    assert "device stm32h743: no timing; MACs are counted" in check_run(config, folder / "run")


def test_results_are_json_with_one_objective(results, folder):
    record = json.loads((folder / "run" / "results.json").read_text())
    assert {network["objective"] for network in record["search"]["networks"]} == {
        network["figures"]["macs"]["value"] for network in record["search"]["networks"]
    }
