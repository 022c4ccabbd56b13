"""Devices by themselves: added, kept, extended, imported from a table that people carried, and used by a run file."""

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.additive import Additive
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.lookup import Lookup
from latency_models.probe import ProbeOptions
from latency_models.profile import Profile, profiles_of
from latency_models.timed_range import in_range
from latency_models.timing import BACKENDS, Timing
from nas.config import load_config
from nas.pipeline.adding import Named, add_named
from nas.pipeline.devices import add_device
from nas.pipeline.probe_set import write_probes
from search_spaces.counts import macs
from search_spaces.errors import ConfigError, DeviceError, MeasurementError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample

SPACE = MixedSpace(widths=((8,), (8, 16), (16, 24)), strides=(1, 2, 2, 1), depths=(1, 2), head_widths=(32,))
OPTIONS = ProbeOptions(networks=20)


@BACKENDS.register("simulated_for_tests")
@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A board whose latency is a price of every node and every stored byte of a file."""

    live: ClassVar[bool] = True
    opset: int = 17

    def fingerprint(self) -> Mapping[str, str]:
        return {"backend": "simulated", "machine": "x86_64", "instruction_sets": "avx2", "opset": str(self.opset)}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        def ms(path):
            model = onnx.load(path)
            return 0.05 + 0.01 * len(model.graph.node) + 1e-6 * path.stat().st_size

        return [Timing(path.name, (np.array([ms(path)]),)) for path in artefacts]


@pytest.fixture
def added(tmp_path):
    def add(**changes):
        options = {"options": OPTIONS, "more": 0, "model": Additive(), **changes}
        return add_device(
            Device(name="board", backend=Simulated()), options["model"], SPACE, GraphInput(), options["options"],
            store=tmp_path / "store", scratch=tmp_path / "scratch", more=options["more"],
        )  # fmt: skip

    (tmp_path / "store").mkdir()
    return add


def test_an_added_device_has_the_scheme_and_file_versions_of_its_own_runtime(added):
    found = added()
    assert found.scheme.reason == "U8S7, for x86_64 with no VNNI"
    assert found.fitted.device.plan.reduce_range
    assert found.fitted.device.opset == 17


def test_one_file_holds_what_was_measured_how_and_what_the_model_is_worth(added):
    found = added()
    record = json.loads(found.path.read_text())
    assert record["schema"] == 1
    assert record["fingerprint"] == dict(Simulated().fingerprint())
    assert record["protocol"] == {"type": "simulated_for_tests", "opset": 17}
    assert set(record["accuracy"]) == {"float32", "int8"}
    known = record["accuracy"]["float32"]
    assert known["within_10"]["lower"] <= known["within_10"]["value"] <= known["within_10"]["upper"]
    assert list(known["quantiles"]) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    assert Profile.load(found.path).accuracy == record["accuracy"]


def test_a_share_of_all_networks_has_an_interval_too(added):
    found = next(item for item in added().accuracy if item.within_10.value == 1.0)
    assert found.within_10.upper == 1.0
    assert 0.85 < found.within_10.lower < 0.95  # Jeffreys: 20 of 20 at 90 %


def test_a_device_is_measured_once(added):
    first, second = added(), added()
    assert (first.fitted.measured_now, second.fitted.measured_now) == (True, False)
    assert second.path == first.path
    assert [item.mape.value for item in second.accuracy] == pytest.approx(
        [item.mape.value for item in first.accuracy], abs=1e-6
    )


def test_networks_to_time_next_are_new_and_are_added_when_asked_for(added):
    first = added()
    timed = {known.architecture.key for known in first.fitted.profile.networks}
    wanted = [item.architecture.key for item in first.suggestions[:3]]
    assert len(first.suggestions) == 10
    assert not timed & {item.architecture.key for item in first.suggestions}
    second = added(more=3)
    assert [known.architecture.key for known in second.fitted.profile.networks[-6:]] == [
        key for key in wanted for _ in range(2)
    ]
    assert len(Profile.load(second.path).networks) == len(first.fitted.profile.networks) + 6
    assert not {item.architecture.key for item in second.suggestions} & {*timed, *wanted}


def test_each_suggestion_is_worth_less_once_those_before_it_are_timed(added):
    leverages = [float(item.reason.rpartition(" ")[2]) for item in added().suggestions]
    assert leverages == sorted(leverages, reverse=True)
    assert leverages[0] > 0.0


def test_the_lookup_model_gets_the_blocks_it_needs(added):
    found = added(model=Lookup(), options=ProbeOptions(networks=20, blocks=60))
    purposes = [known.purpose for known in found.fitted.profile.networks]
    assert (purposes.count("probe"), purposes.count("block")) == (40, 120)
    assert [item.networks for item in found.accuracy] == [20, 20]
    assert {item.model for item in found.accuracy} == {"LookupLatency"}


def test_a_query_out_of_range_is_refused_in_words(added):
    predictor = added().fitted.predictors["float32"]
    other = MixedSpace(kernels=(7,))
    strange = with_precision(lower(decode(other, sample(other, 1, np.random.default_rng(0))[0])), None)
    with pytest.raises(MeasurementError, match=r"no timed network held .*depthwise\.k7.*; time networks that do"):
        in_range(predictor, [strange])


def test_a_run_file_starts_from_a_device_that_was_added(added, tmp_path, monkeypatch):
    added()
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "store"))
    run = tmp_path / "run.toml"
    run.write_text(
        '[task]\ntype = "digits"\n[data]\nheight = 16\nwidth = 16\ncolor = "grey"\n[device]\nbase = "board"\n'
    )
    device = load_config(run).device
    assert (device.name, device.backend, device.opset) == ("board", Simulated(), 17)
    assert device.plan.reduce_range
    run.write_text(run.read_text().replace('"board"', '"bord"'))
    with pytest.raises(ConfigError, match="did you mean 'board'"):
        load_config(run)


def test_of_several_profiles_of_a_device_the_newest_counts(tmp_path):
    import os

    for age, name in enumerate(("pi.2.b.json", "pi.1.a.json", "pi.4.c.1.json")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (100 - age, 100 - age))
    assert [path.name for path in profiles_of(tmp_path, "pi")] == ["pi.1.a.json", "pi.2.b.json"]


@pytest.fixture
def carried(tmp_path):
    """A probe set in a folder, as `nas device probe` writes it."""
    device = Device(name="probes", backend=Table(path=str(tmp_path / "set" / "table.csv")))
    write_probes(device, SPACE, GraphInput(), OPTIONS, tmp_path / "set")
    (tmp_path / "store").mkdir()
    return tmp_path / "set"


def fill(folder, *, rows=None):
    """Fill the table in with a made-up latency of every file, or of the first `rows`."""
    entries = json.loads((folder / "probes.json").read_text())["files"]
    from search_spaces.architecture import Architecture

    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "latency_ms", "origin"])
        for number, entry in enumerate(entries):
            latency = 0.1 + macs(lower(Architecture.from_dict(entry["architecture"]))) / 1e7
            writer.writerow([entry["file"], latency if rows is None or number < rows else "", "measured"])


def imported(folder, tmp_path):
    return add_named(Named(name="far", table=folder / "table.csv"), store=tmp_path / "store")


def test_a_probe_set_holds_files_an_empty_table_and_the_script_that_fills_it(carried):
    with (carried / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert all((carried / row["file"]).is_file() and not row["latency_ms"] for row in rows)
    told = subprocess.run([sys.executable, carried / "timing_script.py"], capture_output=True, text=True, check=False)
    assert "fill FOLDER" in told.stderr


def test_a_table_that_people_carried_back_becomes_a_device(carried, tmp_path):
    fill(carried)
    told = imported(carried, tmp_path)
    found = told.added
    assert {known.timing.origin for known in found.fitted.profile.networks} == {"measured"}
    assert all(item.mape.value < 0.2 for item in found.accuracy)
    assert 'base = "far"' in told.text()
    assert "within 10 %, MAPE" in told.text()
    assert json.loads(told.to_json())["device"] == "far"
    assert len(json.loads(told.to_json())["next"]) == 10


def test_rows_that_were_not_filled_in_are_left_out(carried, tmp_path):
    fill(carried, rows=30)
    assert [item.networks for item in imported(carried, tmp_path).added.accuracy] == [15, 15]


def test_an_empty_table_says_what_is_missing(carried, tmp_path):
    with pytest.raises(DeviceError, match=r"holds no latency of the files in .*; fill in latency_ms"):
        imported(carried, tmp_path)


def test_a_table_without_its_probe_set_is_refused(carried, tmp_path):
    fill(carried)
    (carried / "probes.json").unlink()
    with pytest.raises(DeviceError, match=r"probes\.json cannot be read.*`nas device probe` wrote"):
        imported(carried, tmp_path)


def test_flags_that_name_two_devices_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--ssh and --table name two devices"):
        add_named(Named(name="x", ssh="pi", table=tmp_path / "t.csv"), store=tmp_path)
