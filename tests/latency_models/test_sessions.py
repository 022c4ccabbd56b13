"""Networks timed together, and the anchors that tie a later session to the profile's level."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from latency_models.backends.command import Command
from latency_models.backends.local import Local
from latency_models.device import Device
from latency_models.failures import UnsupportedOperator
from latency_models.graph import GraphInput
from latency_models.probe import ProbeOptions, choose_blocks, choose_probes, write_probe
from latency_models.profile import Probed, Profile
from latency_models.sessions import ANCHORS, choose_anchors, probe, time_files, time_networks
from latency_models.timing import Timing
from search_spaces.counts import macs
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan

SPACE = MixedSpace(widths=((8, 16), (16, 24)), depths=(1, 2), expansions=(2,), head_widths=(16, 32), resolutions=(16,))
OPTIONS = ProbeOptions(networks=20)
IMAGE = GraphInput()


@dataclass(frozen=True, slots=True, kw_only=True)
class BySize:
    """A device that takes a microsecond for a hundred bytes of a file, and more in a session that neighbours slow."""

    slower: float = 1.0
    slower_int8: float = 1.0

    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {"backend": "by_size", "cpu": "none"}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        assert reference in artefacts
        progress(1.0)

        def ms(path):
            return path.stat().st_size / 1e5 * (self.slower_int8 if ".int8." in path.name else self.slower)

        return [Timing(path.name, (np.array([ms(path)]),), "device", "emulated") for path in artefacts]


BOARD = Device(name="board", backend=BySize())
LATER = replace(BOARD, backend=BySize(slower=1.07, slower_int8=0.95))


# -- the whole


def test_a_probed_device_has_every_network_in_every_precision(tmp_path):
    told = []
    architectures = choose_probes(SPACE, OPTIONS)[:10]
    profile = probe(
        BOARD,
        architectures,
        IMAGE,
        folder=tmp_path,
        probes="abc",
        progress=lambda label, share: told.append((label, share)),
    )
    assert (profile.device, profile.fingerprint, profile.probes) == ("board", BySize().fingerprint(), "abc")
    assert profile.seconds > 0
    for precision in ("float32", "int8"):
        assert [known.architecture for known in profile.networks if known.precision == precision] == architectures
    for known in profile.networks:
        assert known.timing.name == f"{known.architecture.key}.{known.precision}.onnx"
        assert known.timing.latency_ms == (tmp_path / known.timing.name).stat().st_size / 1e5
        assert (known.timing.origin, known.purpose) == ("emulated", "probe")
    assert told[-1] == ("timing probes", 1.0)
    assert ("writing probes", 1.0) in told
    assert Profile.from_json(profile.to_json(), source="x").to_json() == profile.to_json()


def test_a_device_of_one_precision_is_probed_in_that_alone(tmp_path):
    device = replace(BOARD, precisions=("int8",))
    profile = probe(device, choose_probes(SPACE, OPTIONS)[:3], IMAGE, folder=tmp_path, probes="abc")
    assert {known.precision for known in profile.networks} == {"int8"}
    assert len(list(Path(tmp_path).glob("*.onnx"))) == 3


def test_this_machine_can_be_probed(tmp_path):
    device = Device(name="here", backend=Local(visits=2, visit_ms=0.2, drift=0.0))
    profile = probe(device, choose_probes(SPACE, OPTIONS)[:3], IMAGE, folder=tmp_path, probes="abc")
    assert all(known.timing.latency_ms > 0 and known.timing.origin == "measured" for known in profile.networks)
    assert len(profile.samples("int8", QuantizationPlan())) == 3


# -- what the device refuses


@pytest.fixture
def picky(tmp_path):
    """Return a function that makes a device whose program refuses files by a test of the shell on $1 and $s."""

    def made(refuses, **options):
        program = tmp_path / "bench"
        program.write_text(
            f's=$(wc -c < "$1")\nif {refuses}; then echo "NOT_IMPLEMENTED : $1"; exit 1; fi\necho took $s us\n'
        )
        backend = Command(
            command=("sh", str(program), "{file}"), pattern="took ([0-9]+) us", unit="us", visits=1, drift=0.0
        )
        return Device(name="picky", backend=backend, **options)

    return made


def sizes(folder, architectures, device):
    """Return the sizes of the files that a session writes for networks, in order."""
    for number, architecture in enumerate(architectures):
        write_probe(architecture, "float32", device, IMAGE, folder / "size.onnx", seed=number)
        yield (folder / "size.onnx").stat().st_size


def test_refused_networks_are_noted_in_the_profile_and_left_out_of_what_models_are_fitted_to(picky, tmp_path):
    architectures = choose_probes(SPACE, OPTIONS)[:12]
    device = picky("false", precisions=("float32",))
    largest = sorted(sizes(tmp_path, architectures, device))[-2]
    device = picky(f"test $s -ge {largest}", precisions=("float32",))
    found = probe(device, architectures, IMAGE, folder=tmp_path / "probes", probes="abc")
    assert (len(found.networks), len(found.refused)) == (10, 2)
    assert {known.architecture for known in (*found.networks, *found.refused)} == set(architectures)
    assert {(known.precision, known.kind, known.purpose) for known in found.refused} == {
        ("float32", "unsupported", "probe")
    }
    assert f"lacks what {found.refused[0].architecture.key}.float32.onnx needs" in found.refused[0].reason
    assert len(found.samples("float32", QuantizationPlan())) == 10
    assert found.refusals().startswith("2 of 12 files gave no timing (2 unsupported), the first: the runtime of")
    again = Profile.from_json(found.to_json(), source="x")
    assert again.refused == found.refused


def test_with_too_few_networks_left_there_is_one_sentence(picky, tmp_path):
    architectures = choose_probes(SPACE, OPTIONS)[:12]
    device = picky("case $1 in *.int8.onnx) true;; *) false;; esac")
    with pytest.raises(MeasurementError, match=r"picky timed 0 of 12 int8 networks, .* needs 10: .*leave int8 out of"):
        probe(device, architectures, IMAGE, folder=tmp_path / "probes", probes="abc")


def test_a_refused_reference_gives_way_to_another_file(picky, tmp_path):
    architectures = choose_probes(SPACE, ProbeOptions(networks=20))
    middle = sorted(architectures, key=lambda known: macs(lower(known)))[10]
    device = picky(f"case $1 in *{middle.key}*) true;; *) false;; esac", precisions=("float32",))
    found = probe(device, architectures, IMAGE, folder=tmp_path / "probes", probes="abc")
    assert [known.architecture for known in found.refused] == [middle]
    assert len(found.networks) == 19


def test_a_network_of_which_none_may_be_missing_is_an_error_of_its_kind(picky, tmp_path):
    architectures = choose_probes(SPACE, OPTIONS)[:3]
    odd = max(architectures, key=lambda known: macs(lower(known)))
    device = picky(f"case $1 in *{odd.key}*) true;; *) false;; esac", precisions=("float32",))
    with pytest.raises(UnsupportedOperator, match=f"lacks what {odd.key}.float32.onnx needs") as caught:
        time_networks(device, [(known, "probe") for known in architectures], IMAGE, folder=tmp_path / "probes")
    assert caught.value.file == f"{odd.key}.float32.onnx"


def test_anchors_that_are_refused_tell_no_level_unless_some_are_timed(profile, picky, tmp_path):
    anchors = choose_anchors(profile, ("float32",))
    file = tmp_path / "new.onnx"
    file.write_bytes(b"x" * 1000)
    options = {"anchors": anchors, "graph_input": IMAGE, "folder": tmp_path / "later", "references": [file]}
    key = anchors[0].architecture.key
    session = time_files(picky(f"case $1 in *{key}*) true;; *) false;; esac"), [file], **options)
    assert session.level("float32") == pytest.approx(100.0, rel=1e-9)  # 1 us a byte, the profile's was 0.01
    with pytest.raises(UnsupportedOperator, match="anchor-"):
        time_files(picky("case $1 in *anchor-*) true;; *) false;; esac"), [file], **options)


# -- anchors


@pytest.fixture
def profile(tmp_path):
    options = ProbeOptions(networks=20, blocks=3)
    return probe(
        BOARD, choose_probes(SPACE, options), IMAGE, folder=tmp_path, probes="abc", blocks=choose_blocks(SPACE, options)
    )


def latencies(networks, precision):
    return [known.timing.latency_ms for known in networks if known.precision == precision]


def test_anchors_span_the_latencies_of_the_profiles_whole_networks(profile):
    anchors = choose_anchors(profile, ("float32", "int8"))
    whole = [known for known in profile.networks if known.purpose == "probe"]
    assert len(anchors) == 2 * ANCHORS
    for precision in ("float32", "int8"):
        assert min(latencies(anchors, precision)) == min(latencies(whole, precision))
        assert max(latencies(anchors, precision)) == max(latencies(whole, precision))
        assert len({known.architecture.key for known in anchors if known.precision == precision}) == ANCHORS


def test_a_network_of_another_session_is_no_anchor(profile):
    joined = profile.with_networks([replace(known, level=1.01) for known in profile.networks])
    assert {known.level for known in choose_anchors(joined, ("float32",))} == {1.0}


def test_a_profile_with_fewer_networks_gives_all_of_them(profile):
    assert len(choose_anchors(replace(profile, networks=profile.networks[:6]), ("float32", "int8"))) == 6


def test_networks_of_a_slower_session_join_the_profile_at_its_level(profile, tmp_path):
    new = [(item, "probe") for item in choose_probes(SPACE, ProbeOptions(networks=15, seed=9))]
    anchors = choose_anchors(profile, LATER.precisions)
    timed = time_networks(LATER, new, IMAGE, folder=tmp_path / "later", anchors=anchors)
    assert len(timed) == 30
    for known in timed:
        size = (tmp_path / "later" / known.timing.name).stat().st_size
        level = {"float32": 1.07, "int8": 0.95}[known.precision]
        assert known.level == pytest.approx(level, rel=1e-12)
        assert known.timing.latency_ms == pytest.approx(level * size / 1e5, rel=1e-12)
        assert known.sample(QuantizationPlan()).latency_ms == pytest.approx(size / 1e5, rel=1e-12)


def test_one_anchor_that_strays_does_not_move_the_level(profile, tmp_path):
    first, *others = choose_anchors(profile, ("float32",))
    strayed = replace(first, timing=Timing("x", (10.0 * first.timing.visits[0],), "device", "emulated"))
    file = tmp_path / "new.onnx"
    file.write_bytes(b"x" * 1000)
    session = time_files(LATER, [file], anchors=[strayed, *others], graph_input=IMAGE, folder=tmp_path / "later")
    assert session.level("float32") == pytest.approx(1.07, rel=1e-12)
    assert [timing.name for timing in session.outcomes] == ["new.onnx"]


def test_without_anchors_a_session_stands_by_itself(profile, tmp_path):
    timed = time_networks(LATER, [(profile.networks[0].architecture, "probe")], IMAGE, folder=tmp_path / "later")
    assert {known.level for known in timed} == {1.0}


def test_the_level_of_a_network_survives_the_disk(profile):
    joined = profile.with_networks([replace(profile.networks[0], level=1.25)])
    again = Profile.from_json(joined.to_json(), source="x")
    assert [known.level for known in again.networks] == [known.level for known in joined.networks]
    assert again.networks[-1].sample(QuantizationPlan()).latency_ms == profile.networks[0].timing.latency_ms / 1.25


@pytest.mark.parametrize("level", [0.0, -1.0, float("inf"), float("nan")])
def test_a_level_that_divides_nothing_is_refused(profile, level):
    known = profile.networks[0]
    with pytest.raises(ValueError, match="level of a session must be above 0"):
        Probed(architecture=known.architecture, precision="float32", timing=known.timing, level=level)
