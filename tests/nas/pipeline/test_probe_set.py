"""Folders of probe sets: what a new set may replace, and how a filled-in table fits the set beside it."""

import csv
import json
from dataclasses import replace

import pytest

from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.probe import ProbeOptions
from nas.pipeline.adding import Named, add_named
from nas.pipeline.probe_set import write_probes
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.errors import ConfigError, DeviceError, MeasurementError, PluginError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace

SPACE = MixedSpace(classes=7, widths=((8,), (8, 16), (16, 24)), strides=(1, 2, 2, 1), depths=(1, 2), head_widths=(32,))


def write(folder, space=SPACE):
    device = Device(name="probes", backend=Table(path=str(folder / "table.csv")))
    return write_probes(device, space, GraphInput(), ProbeOptions(networks=12), folder)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set")
    (tmp_path / "store").mkdir()
    return tmp_path / "set"


def listed(folder):
    return [entry["file"] for entry in json.loads((folder / "probes.json").read_text())["files"]]


def model_files(folder):
    return {path.name for path in folder.glob("*.onnx")}


def latency_of(entry):
    return 0.1 + macs(lower(Architecture.from_dict(entry["architecture"]))) / 1e7


def fill(folder, change=lambda rows: rows):
    entries = json.loads((folder / "probes.json").read_text())["files"]
    rows = change([[entry["file"], f"{latency_of(entry):.6f}", "measured"] for entry in entries])
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "latency_ms", "origin"], *rows])


def imported(folder, table=None):
    return add_named(Named(name="far", table=table or folder / "table.csv"), store=folder.parent / "store")


# -- what a new set may replace


@pytest.mark.parametrize("space", [SPACE, replace(SPACE, classes=5)], ids=["same set", "other set"])
def test_latencies_that_were_filled_in_are_never_emptied(folder, space):
    fill(folder, lambda rows: [*rows[:3], *([name, "", ""] for name, _, _ in rows[3:])])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        ConfigError, match=r"holds 3 rows that are filled in.*another folder, or import .*device add NAME"
    ):
        write(folder, space)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_table_that_cannot_be_read_is_not_overwritten(folder):
    (folder / "table.csv").write_text("file;latency_ms\na.onnx;0,5\n")
    with pytest.raises(ConfigError, match=r"separated by semicolons.*choose another folder"):
        write(folder)
    assert (folder / "table.csv").read_text() == "file;latency_ms\na.onnx;0,5\n"


def test_an_unfilled_set_is_replaced_by_another_and_nothing_else_is_removed(folder):
    (folder / "mine.onnx").write_text("mine")
    old = model_files(folder) - {"mine.onnx"}
    write(folder, replace(SPACE, classes=5))
    assert not old & model_files(folder)
    assert model_files(folder) == {*listed(folder), "mine.onnx"}


def test_a_path_out_of_the_folder_is_not_removed_with_a_set(folder, tmp_path):
    kept = tmp_path / "kept.onnx"
    kept.write_text("kept")
    record = json.loads((folder / "probes.json").read_text())
    record["files"][0]["file"] = "../kept.onnx"
    (folder / "probes.json").write_text(json.dumps(record))
    write(folder)
    assert kept.exists()


def test_a_set_that_was_cut_short_lists_its_files_and_is_replaced(tmp_path):
    device = Device(name="probes", backend=Table(path="table.csv"))

    def stop(_step, share):
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_probes(device, SPACE, GraphInput(), ProbeOptions(networks=10), tmp_path, progress=stop)
    assert model_files(tmp_path) < set(listed(tmp_path))
    write(tmp_path, replace(SPACE, classes=5))
    assert model_files(tmp_path) == set(listed(tmp_path))


def test_a_set_that_cannot_be_read_is_not_mixed_with_another(folder):
    (folder / "probes.json").write_text("{")
    with pytest.raises(ConfigError, match=r"probes\.json cannot be read .* choose another folder"):
        write(folder)


# -- how a table fits its set


def test_files_that_are_missing_and_unknown_are_counted(folder):
    fill(folder, lambda rows: [*rows[:21], ["strange.onnx", "1", "measured"]])
    told = imported(folder)
    assert (
        "21 of 24 files of the probe set have a latency, 3 missing; 1 unknown to the set: strange.onnx" in told.text()
    )
    assert "21 files read from the table" in told.text()
    table = json.loads(told.to_json())["table"]
    assert (table["files"], table["filled"], table["unknown"]) == (24, 21, ["strange.onnx"])


def test_too_few_rows_are_told_with_their_number(folder):
    fill(folder, lambda rows: rows[:6])
    with pytest.raises(
        MeasurementError, match=r"3 timed networks, .*6 of 24 files of the probe set have a latency, 18 m"
    ):
        imported(folder)


def test_a_whole_table_has_nothing_missing_unknown_or_suspicious(folder):
    fill(folder)
    told = imported(folder)
    assert "24 of 24 files of the probe set have a latency, 0 missing; 0 unknown to the set" in told.text()
    assert told.added.warnings == ()
    assert "warning" not in told.text()


def test_files_whose_rows_differ_are_named(folder):
    again = [1.4, 1.0, 1.0, 1.8]  # one disturbed visit of five is no mix-up
    fill(folder, lambda rows: [*rows, *([name, str(float(ms) * factor), o] for name, ms, o in rows for factor in again),
                               *[[rows[4][0], str(float(rows[4][1]) * 3.0), "measured"]] * 5])  # fmt: skip
    warnings = [told for told in imported(folder).added.warnings if "rows" in told]
    assert len(warnings) == 1
    assert f"1 file has rows that differ by more than 1.5 times ({listed(folder)[4]})" in warnings[0]


def test_a_file_in_another_unit_is_named_with_what_was_expected(folder):
    names = [name for name in listed(folder) if ".int8." in name]

    def change(rows):
        scale = {name: 1000.0 if number % 3 == 0 else 1.0 for number, name in enumerate(names)}
        return [[name, str(float(ms) * scale.get(name, 1.0)), origin] for name, ms, origin in rows]

    fill(folder, change)
    told = imported(folder)
    (warning,) = told.added.warnings
    assert warning.startswith("int8: only ")
    assert warning.count(" measured ") == warning.count(" predicted ") - 1 == 3
    assert "is every latency in milliseconds, and of the file it stands beside?" in warning
    assert f"warning: {warning}" in told.text()
    assert json.loads(told.to_json())["warnings"] == [warning]
    known = next(item for item in told.added.accuracy if item.precision == "int8")
    rows = dict(line.split(",")[:2] for line in (folder / "table.csv").read_text().splitlines()[1:])
    for miss in known.worst:
        assert float(rows[miss.file]) == pytest.approx(miss.measured_ms)
        assert f"{miss.file} measured {miss.measured_ms:.3g} ms, predicted {miss.predicted_ms:.3g} ms" in warning


def test_a_folder_stands_for_the_table_in_it(folder):
    fill(folder)
    assert len(imported(folder, table=folder).added.fitted.profile.networks) == 24


def test_a_table_that_is_not_there_is_told_before_its_probe_set(tmp_path):
    with pytest.raises(DeviceError, match=r"the table .*nofile\.csv cannot be read: No such file"):
        imported(tmp_path / "x", table=tmp_path / "nofile.csv")


def test_a_table_of_other_files_says_which_it_names(folder):
    fill(folder, lambda rows: [["other.onnx", "1", "measured"]])
    with pytest.raises(
        DeviceError, match=r"holds no latency of the files in .*names 1 other files, such as 'other\.onnx'"
    ):
        imported(folder)


def test_a_space_that_is_not_loaded_asks_for_its_plug_in(folder):
    fill(folder)
    text = (folder / "probes.json").read_text()
    (folder / "probes.json").write_text(
        text.replace('"type": "mixed"', '"type": "mine"').replace('"type":"mixed"', '"type":"mine"')
    )
    with pytest.raises(PluginError, match=r"'mine'.*give --plugin FILE"):
        imported(folder)
