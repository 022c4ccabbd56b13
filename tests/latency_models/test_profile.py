import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latency_models.profile import (
    SCHEMA,
    Probed,
    Profile,
    Refused,
    default_folder,
    digest,
    profile_path,
    read_description,
)
from latency_models.timing import Timing
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.errors import DeviceError, PluginError
from search_spaces.lowering import lower
from search_spaces.precision import QuantizationPlan, with_precision

FINGERPRINT = {"backend": "local", "cpu": "A CPU", "runtime": "onnxruntime 1.31", "threads": "1", "governor": "unknown"}
PLAN = QuantizationPlan(activation="int8")


def network(width):
    return Architecture((3, 16, 16), ((Conv(width=width, stride=2), Classifier(classes=4)),))


def probed(width, precision, *ms, purpose="probe"):
    visits = tuple(np.array([sample, sample + 0.5]) for sample in ms)
    name = f"{network(width).key}.{precision}.onnx"
    timing = Timing(name, visits, "thread_cpu", "measured")
    return Probed(architecture=network(width), precision=precision, timing=timing, purpose=purpose)


@pytest.fixture
def profile():
    networks = (probed(8, "float32", 1.0, 1.25, 3.0), probed(8, "int8", 0.5), probed(16, "float32", 2.0))
    return Profile(device="board", fingerprint=FINGERPRINT, probes="abc123", seconds=1.5, networks=networks)


# -- round trip


def test_a_profile_comes_back_with_every_sample(tmp_path, profile):
    path = tmp_path / "board.json"
    path.write_text(profile.to_json())
    again = Profile.load(path)
    assert again.to_json() == profile.to_json()
    assert (again.device, again.fingerprint, again.probes, again.seconds) == ("board", FINGERPRINT, "abc123", 1.5)
    for before, after in zip(profile.networks, again.networks, strict=True):
        assert after.architecture == before.architecture
        assert (after.precision, after.purpose) == (before.precision, before.purpose)
        assert [visit.tolist() for visit in after.timing.visits] == [visit.tolist() for visit in before.timing.visits]


def test_samples_are_those_of_one_precision_at_the_plan_of_the_device(profile):
    floats, ints = profile.samples("float32", PLAN), profile.samples("int8", PLAN)
    assert [sample.latency_ms for sample in floats] == [1.25, 2.0]
    assert [sample.latency_ms for sample in ints] == [0.5]
    assert floats[0].workload == with_precision(lower(network(8)), None)
    assert ints[0].workload == with_precision(lower(network(8)), PLAN)
    assert ints[0].workload.input.dtype == "int8"


def test_more_networks_make_another_profile(profile):
    more = profile.with_networks([probed(24, "float32", 4.0, purpose="delivered")])
    assert len(profile.networks) == 3
    assert [sample.latency_ms for sample in more.samples("float32", PLAN)] == [1.25, 2.0, 4.0]
    assert Profile.from_json(more.to_json(), source="x").networks[-1].purpose == "delivered"


def refused(width, **changes):
    fields = {"precision": "int8", "kind": "out_of_memory", "reason": "too large", "purpose": "block"}
    return Refused(architecture=network(width), **fields | changes)


def test_refused_networks_come_back_with_kind_and_reason(profile):
    more = profile.with_networks([refused(24), probed(24, "float32", 4.0), refused(32, kind="time_out")])
    assert [len(known) for known in (more.networks, more.refused)] == [4, 2]
    assert Profile.from_json(more.to_json(), source="x").refused == more.refused
    assert len(more.samples("int8", PLAN, blocks=True)) == 1
    assert more.refusals() == "2 of 6 files gave no timing (1 out of memory, 1 time out), the first: too large"
    assert profile.refusals() == ""


def test_a_profile_written_before_refusals_were_noted_is_read(profile):
    record = json.loads(profile.to_json())
    del record["refused"]
    assert Profile.from_json(json.dumps(record), source="x").to_json() == profile.to_json()


def test_a_kind_of_refusal_nobody_knows_is_refused(profile):
    with pytest.raises(ValueError, match="kind must be one of time_out, out_of_memory, unsupported, refused, got 'x'"):
        refused(8, kind="x")
    text = profile.with_networks([refused(8)]).to_json().replace("out_of_memory", "magic")
    with pytest.raises(DeviceError, match="is no device profile"):
        Profile.from_json(text, source="board.json")


# -- which file is whose


def test_the_file_is_named_for_device_circumstances_and_probe_set(tmp_path):
    path = profile_path(tmp_path, "board", FINGERPRINT, "abc123")
    assert path == profile_path(tmp_path, "board", dict(reversed(FINGERPRINT.items())), "abc123")
    name, circumstances, probes, suffix = path.name.split(".")
    assert (name, probes, suffix) == ("board", "abc123", "json")
    assert circumstances == digest(FINGERPRINT)


@pytest.mark.parametrize("name", sorted(FINGERPRINT))
def test_a_change_of_anything_in_the_fingerprint_is_another_file(tmp_path, name):
    before = profile_path(tmp_path, "board", FINGERPRINT, "abc123")
    assert profile_path(tmp_path, "board", {**FINGERPRINT, name: "other"}, "abc123") != before
    without = {key: value for key, value in FINGERPRINT.items() if key != name}
    assert profile_path(tmp_path, "board", without, "abc123") != before


def test_another_device_or_probe_set_is_another_file(tmp_path):
    paths = {
        profile_path(tmp_path, device, FINGERPRINT, probes) for device in ("board", "other") for probes in ("a", "b")
    }
    assert len(paths) == 4


def test_a_file_that_holds_another_devices_figures_is_not_used_in_silence(profile):
    profile.require(FINGERPRINT, "abc123", source="board.json")
    with pytest.raises(
        DeviceError, match=r"board.json was measured on another device: governor was 'unknown' and is 'p"
    ):
        profile.require({**FINGERPRINT, "governor": "performance"}, "abc123", source="board.json")
    with pytest.raises(DeviceError, match="cores was 'unknown' and is '0,1'"):
        profile.require({**FINGERPRINT, "cores": "0,1"}, "abc123", source="board.json")
    with pytest.raises(DeviceError, match=r"board.json holds other networks"):
        profile.require(FINGERPRINT, "abc124", source="board.json")


def test_profiles_live_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("NAS_DEVICES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "embedded-nas" / "devices"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local" / "share" / "embedded-nas" / "devices"


# -- damage


def test_a_file_cut_anywhere_is_one_sentence(tmp_path, profile):
    path = tmp_path / "board.json"
    whole = profile.to_json().rstrip("\n").encode()
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place])
        with pytest.raises(
            DeviceError, match=r"board\.json is no device profile .*; remove it to measure again"
        ) as error:
            Profile.load(path)
        assert "\n" not in str(error.value)


def change(**changes):
    return lambda record: {**record, **changes}


def change_network(**changes):
    return lambda record: {**record, "networks": [{**record["networks"][0], **changes}]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda _record: [],
        lambda _record: None,
        lambda record: {name: value for name, value in record.items() if name != "networks"},
        change(fingerprint="x"),
        change(seconds="soon"),
        change(networks={"a": 1}),
        change_network(architecture={"format": 1}),
        change_network(architecture=[]),
        change_network(timing={"name": "x"}),
        change_network(timing={"name": "x", "clock": "wall", "origin": "measured", "visits_ms": []}),
        change_network(timing={"name": "x", "clock": "wall", "origin": "measured", "visits_ms": [["fast"]]}),
        change_network(timing=3),
    ],
    ids=["list", "null", "no networks", "fingerprint", "seconds", "table", "architecture", "no architecture", "timing",
         "no visits", "words", "number"],
)  # fmt: skip
def test_a_file_of_another_form_is_one_sentence(tmp_path, profile, damage):
    path = tmp_path / "board.json"
    path.write_text(json.dumps(damage(json.loads(profile.to_json()))))
    with pytest.raises(DeviceError, match=r"board\.json is no device profile .*; remove it to measure again"):
        Profile.load(path)


def test_bytes_that_are_no_text_and_a_folder_are_one_sentence(tmp_path):
    path = tmp_path / "board.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeviceError, match=r"board\.json is no device profile"):
        Profile.load(path)
    with pytest.raises(DeviceError, match="cannot be read: Is a directory"):
        Profile.load(tmp_path)


def test_blocks_of_a_plug_in_that_is_not_loaded_are_no_damage(tmp_path, profile):
    path = tmp_path / "board.json"
    text = replace(profile, description={"name": "board"}).to_json()
    path.write_text(text.replace('"type":"conv"', '"type":"gated"').replace('"type":"classifier"', '"type":"tail"'))
    sentence = r"board\.json needs a plug-in that is not loaded: block 'gated' and 'tail'; give --plugin FILE"
    with pytest.raises(PluginError, match=sentence) as error:
        Profile.load(path)
    assert "remove" not in str(error.value)
    assert read_description(path) == {"name": "board"}


def test_a_profile_without_its_plug_in_is_told_even_where_the_rest_of_it_is_damaged(tmp_path, profile):
    record = json.loads(profile.to_json().replace('"type":"conv"', '"type":"gated"'))
    record["networks"][1]["architecture"] = None
    path = tmp_path / "board.json"
    path.write_text(json.dumps(record))
    with pytest.raises(PluginError, match="block 'gated'; give --plugin FILE"):
        Profile.load(path)


def test_another_schema_asks_to_measure_again(tmp_path, profile):
    path = tmp_path / "board.json"
    path.write_text(json.dumps({**json.loads(profile.to_json()), "schema": SCHEMA + 1}))
    with pytest.raises(
        DeviceError, match=rf"board.json has schema {SCHEMA + 1}, expected {SCHEMA}: measure the device"
    ):
        Profile.load(Path(path))


def test_a_figure_that_is_no_number_is_never_written(profile):
    with pytest.raises(ValueError, match="Out of range"):
        replace(profile, networks=(probed(8, "float32", float("nan")),)).to_json()
