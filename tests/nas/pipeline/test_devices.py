"""Devices by themselves: added, kept, extended, imported from a table that people carried, and used by a run file."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.additive import Additive
from latency_models.auto import Auto
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.failures import ConnectionLost
from latency_models.graph import GraphInput
from latency_models.lookup import Lookup
from latency_models.probe import ProbeOptions
from latency_models.profile import Profile, profiles_of
from latency_models.timed_range import in_range
from latency_models.timing import BACKENDS, Timing
from nas.config import load_config
from nas.pipeline.adding import Named, add_named
from nas.pipeline.devices import add_device
from nas.pipeline.probe_set import carried_space, import_table, write_probes
from nas.pipeline.probing import fitted_device, left_out_score
from search_spaces.counts import macs
from search_spaces.errors import ConfigError, DeviceError, MeasurementError, PluginError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.restrict import restrict
from search_spaces.space import decode, sample

SPACE = MixedSpace(classes=7, widths=((8,), (8, 16), (16, 24)), strides=(1, 2, 2, 1), depths=(1, 2), head_widths=(32,))
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


@pytest.mark.parametrize("model", [Lookup(), Auto(models=("lookup",), folds=2)], ids=["itself", "chosen by auto"])
def test_the_lookup_model_gets_the_blocks_it_needs(added, model):
    found = added(model=model, options=ProbeOptions(networks=20, blocks=60))
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


def test_a_device_is_still_known_after_a_run_left_a_profile_that_describes_none(added, tmp_path, monkeypatch):
    found = added()
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "store"))
    bare = replace(found.fitted.profile, description={})
    later = tmp_path / "store" / "board.0123456789ab.run.json"
    later.write_text(bare.to_json())
    os.utime(later, (2e9, 2e9))
    run = tmp_path / "run.toml"
    run.write_text('device = "board"\n[task]\ntype = "digits"\n[data]\nheight = 16\nwidth = 16\ncolor = "grey"\n')
    assert load_config(run).device.backend == Simulated()


def test_a_run_describes_the_device_it_measured(tmp_path):
    device = Device(name="board", backend=Simulated())
    found = fitted_device(
        device, Additive(), SPACE, GraphInput(), OPTIONS, store=tmp_path / "store", scratch=tmp_path / "scratch"
    )
    assert found.profile.description["backend"]["type"] == "simulated_for_tests"
    (path,) = (tmp_path / "store").glob("*.json")
    assert Profile.load(path).description == found.profile.description


@BACKENDS.register("leaving_for_tests")
@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving(Simulated):
    """A board that goes away when files named as anchors come, which is after its probes were timed."""

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        if any(path.name.startswith("anchor-") for path in artefacts):
            raise ConnectionLost("the board went away")
        return Simulated.measure(self, artefacts, reference, progress=progress)


def test_what_was_measured_is_kept_when_the_board_leaves_before_more_is(tmp_path):
    (tmp_path / "store").mkdir()

    def add(more):
        return add_device(
            Device(name="board", backend=Leaving()), Additive(), SPACE, GraphInput(), OPTIONS,
            store=tmp_path / "store", scratch=tmp_path / "scratch", more=more,
        )  # fmt: skip

    with pytest.raises(ConnectionLost, match="went away"):
        add(more=3)
    assert not add(more=0).fitted.measured_now


def test_a_model_that_keeps_no_errors_of_its_own_is_scored_by_fits_without_a_fifth(added):
    found = added().fitted
    predictor = found.predictors["float32"]
    bare = replace(predictor, left_out=np.empty(0))
    with pytest.raises(MeasurementError, match="says nothing of networks left out of its fit to 20 float32 networks"):
        left_out_score(bare, found.profile, "float32", found.device)
    by_refitting, _ = left_out_score(bare, found.profile, "float32", found.device, Additive())
    by_itself, _ = left_out_score(predictor, found.profile, "float32", found.device)
    assert by_refitting.count == by_itself.count == 20
    assert 0 < by_refitting.mape < 3 * by_itself.mape + 0.02


def probed(tmp_path, options, *, graph_input=GraphInput()):  # noqa: B008
    return fitted_device(
        Device(name="board", backend=Simulated()), Additive(), SPACE, graph_input, options,
        store=tmp_path / "store", scratch=tmp_path / "scratch",
    )  # fmt: skip


def test_a_run_that_asks_for_more_networks_times_only_the_rest(tmp_path):
    (tmp_path / "store").mkdir()
    few = [known.architecture for known in probed(tmp_path, OPTIONS).profile.networks]
    many = probed(tmp_path, ProbeOptions(networks=30, seed=7, blocks=4))
    assert many.measured_now
    assert [known.architecture for known in many.profile.networks[:40]] == few
    purposes = [known.purpose for known in many.profile.networks[40:]]
    assert purposes == ["probe"] * 20 + ["block"] * 8
    assert len({known.architecture.key for known in many.profile.networks}) == 34
    assert not probed(tmp_path, ProbeOptions(networks=25)).measured_now
    assert len(list((tmp_path / "store").glob("*.json"))) == 1


def test_images_that_are_normalized_otherwise_need_no_other_profile(tmp_path):
    (tmp_path / "store").mkdir()
    probed(tmp_path, OPTIONS)
    assert not probed(tmp_path, OPTIONS, graph_input=GraphInput(mean=(120.0, 110.0, 100.0), std=(60.0,))).measured_now
    assert probed(tmp_path, OPTIONS, graph_input=GraphInput(dtype="float32")).measured_now


def test_of_several_profiles_of_a_device_the_newest_counts(tmp_path):
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


def draws(space):
    return sample(space, 50, np.random.default_rng(0))


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


@pytest.mark.parametrize("rows", [2, 4, 6], ids=["one network", "two networks", "three networks"])
def test_few_filled_rows_make_a_scaled_roofline_or_a_sentence(carried, tmp_path, rows):
    fill(carried, rows=rows)
    named = Named(name="far", table=carried / "table.csv", model="roofline")
    if rows == 2:
        with pytest.raises(
            MeasurementError, match="RooflineLatency says nothing of networks left out of its fit to 1 float32"
        ):
            add_named(named, store=tmp_path / "store")
    else:
        accuracy = add_named(named, store=tmp_path / "store").added.accuracy
        assert [item.networks for item in accuracy] == [rows // 2] * 2


def test_networks_to_time_next_are_of_the_space_that_was_carried(carried, tmp_path):
    fill(carried)
    suggestions = imported(carried, tmp_path).added.suggestions
    assert {lower(item.architecture).output.shape[-1] for item in suggestions} == {SPACE.classes}


def test_a_probe_set_that_tells_no_space_is_imported_too(carried, tmp_path):
    fill(carried)
    record = json.loads((carried / "probes.json").read_text())
    for name in ("space", "opset", "ir_version", "allow_ops"):
        del record[name]
    (carried / "probes.json").write_text(json.dumps(record))
    table = Table(path=str(carried / "table.csv"))
    assert carried_space(table) is None
    device, profile = import_table(Device(name="far", backend=table), table)
    assert (device.opset, device.ir_version, device.allow_ops, len(profile.networks)) == (18, 8, (), 40)


def test_a_space_of_a_plug_in_that_is_not_there_is_named(carried, tmp_path):
    fill(carried)
    text = (carried / "probes.json").read_text()
    (carried / "probes.json").write_text(text.replace('"mixed"', '"mixt"'))
    with pytest.raises(PluginError, match=r"probes\.json: space: .*did you mean 'mixed'"):
        imported(carried, tmp_path)


def test_an_imported_device_opens_no_newer_files_than_those_that_were_carried(tmp_path):
    (tmp_path / "store").mkdir()
    device = Device(name="probes", backend=Table(path=str(tmp_path / "table.csv")), opset=13, ir_version=7)
    write_probes(device, SPACE, GraphInput(), ProbeOptions(networks=10), tmp_path)
    fill(tmp_path)
    found = imported(tmp_path, tmp_path).added.fitted.device
    assert (found.opset, found.ir_version) == (13, 7)


def test_a_restricted_space_is_carried_with_the_operators_that_restrict_it(tmp_path):
    kinds = set().union(*({op.kind for op in lower(decode(SPACE, row))} for row in draws(SPACE)))
    allowed = tuple(sorted(kinds - {"reshape", "transpose"}))
    assert "transpose" in kinds  # the shuffle of channels
    table = Table(path=str(tmp_path / "table.csv"))
    device = Device(name="probes", backend=table, allow_ops=allowed, precisions=("float32",))
    restricted = restrict(SPACE, allowed)
    assert restricted != SPACE
    write_probes(device, restricted, GraphInput(), ProbeOptions(networks=10), tmp_path)
    assert carried_space(table) == restricted
    fill(tmp_path)
    assert import_table(Device(name="far", backend=table), table)[0].allow_ops == allowed


def test_nothing_more_is_timed_on_a_table(carried, tmp_path):
    fill(carried)
    named = Named(name="far", table=carried / "table.csv")
    with pytest.raises(ConfigError, match=r"--more 3: nothing here can time .*'far'.*are printed for whoever has"):
        add_named(named, store=tmp_path / "store", more=3)
    assert "--more" not in add_named(named, store=tmp_path / "store").text()


@pytest.mark.parametrize("noisy", ["float32", "int8"])
def test_networks_to_time_next_are_those_of_the_less_certain_precision(carried, tmp_path, noisy):
    fill(carried)
    rows = list(csv.reader((carried / "table.csv").read_text().splitlines()))
    rng = np.random.default_rng(0)
    for row in rows[1:]:
        row[1] = str(float(row[1]) * float(np.exp(0.3 * rng.normal() if f".{noisy}." in row[0] else 0.0)))
    with (carried / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    told = imported(carried, tmp_path)
    assert {item.precision for item in told.added.suggestions} == {noisy}
    assert {item["precision"] for item in json.loads(told.to_json())["next"]} == {noisy}
    listed = told.text().partition("networks to time next")[2]
    assert listed.count(f"  {noisy} ") == 10


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
