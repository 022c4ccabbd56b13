from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.backends.local import Local
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.graph import GraphInput
from latency_models.probe import ProbeOptions, choose_probes, probe_digest, write_probe
from latency_models.timing import Timing
from search_spaces.counts import macs
from search_spaces.errors import DeviceError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan
from search_spaces.space import decode, sample
from search_spaces.workload import KINDS

SPACE = MixedSpace(widths=((8, 16), (16, 24)), depths=(1, 2), expansions=(2,), head_widths=(16, 32), resolutions=(16,))
OPTIONS = ProbeOptions(networks=12)
IMAGE = GraphInput()


@dataclass(frozen=True, slots=True, kw_only=True)
class BySize:
    """A device that takes a microsecond for a hundred bytes of the file: real files, and a time that is known."""

    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {"backend": "by_size", "cpu": "none"}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        assert reference in artefacts
        progress(1.0)
        return [Timing(path.name, (np.array([path.stat().st_size / 1e5]),), "device", "emulated") for path in artefacts]


BOARD = Device(name="board", backend=BySize())


# -- which networks


def test_probes_are_distinct_and_as_many_as_asked_for():
    found = choose_probes(SPACE, ProbeOptions(networks=30))
    assert len({architecture.key for architecture in found}) == len(found) == 30


def test_the_seed_decides_and_nothing_else():
    def keys(seed):
        return [architecture.key for architecture in choose_probes(SPACE, ProbeOptions(networks=12, seed=seed))]

    assert keys(0) == keys(0)
    assert keys(0) != keys(1)


def test_every_size_is_drawn_equally_often_on_a_logarithmic_scale():
    space = replace(SPACE, widths=((8, 32), (8, 32)), expansions=(1, 6))
    chosen = np.log([macs(lower(architecture)) for architecture in choose_probes(space, ProbeOptions(networks=24))])
    drawn = [decode(space, row) for row in sample(space, 288, np.random.default_rng(0))]
    random = np.log([macs(lower(architecture)) for architecture in drawn])
    assert (chosen.min(), chosen.max()) == (random.min(), random.max())
    edges = np.linspace(random.min(), random.max() + 1e-9, 5)
    assert np.histogram(chosen, edges)[0].min() >= 4  # of 6 in each quarter of the range
    assert np.histogram(random, edges)[0].min() < 288 / 10


def test_only_networks_the_device_can_run_are_probed():
    allowed = KINDS - {"hard_swish"}
    found = choose_probes(SPACE, OPTIONS, allowed=allowed)
    kinds = {op.kind for architecture in found for op in lower(architecture)}
    assert "hard_swish" not in kinds
    assert {"conv", "relu", "add"} <= kinds


@pytest.mark.parametrize(
    ("space", "allowed", "message"),
    [
        (
            replace(
                SPACE, widths=((8,),), depths=(1,), kernels=(3,), se=(False,), activations=("relu",), head_widths=(16,)
            ),
            frozenset(),
            r"144 draws found only 2 distinct networks of the space, .* needs at least 10: widen the space$",
        ),
        (SPACE, frozenset({"conv"}), r"found only 0 distinct networks .* that run on the device \(allow_ops: conv\)"),
    ],
    ids=["small space", "narrow device"],
)
def test_too_few_networks_say_what_to_widen(space, allowed, message):
    with pytest.raises(DeviceError, match=message):
        choose_probes(space, OPTIONS, allowed=allowed)


def test_fewer_than_ten_networks_are_refused():
    with pytest.raises(ValueError, match="networks must be at least 10, got 9"):
        ProbeOptions(networks=9)


# -- what is told apart


def test_the_digest_changes_with_everything_that_changes_the_files():
    others = [
        (replace(SPACE, depths=(1, 3)), IMAGE, BOARD),
        (replace(SPACE, resolutions=(24,)), IMAGE, BOARD),
        (replace(SPACE, classes=7), IMAGE, BOARD),
        (SPACE, GraphInput(dtype="float32", layout="nchw"), BOARD),
        (SPACE, IMAGE, replace(BOARD, quantization=QuantizationPlan(activation="int8"))),
        (SPACE, IMAGE, replace(BOARD, quantization=QuantizationPlan(reduce_range=True))),
        (SPACE, IMAGE, replace(BOARD, precisions=("float32",))),
        (SPACE, IMAGE, replace(BOARD, allow_ops=("conv", "relu"))),
        (SPACE, IMAGE, replace(BOARD, opset=17)),
        (SPACE, IMAGE, replace(BOARD, ir_version=9)),
    ]
    digests = [probe_digest(SPACE, IMAGE, BOARD), *(probe_digest(*other) for other in others)]
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_change_with_what_changes_no_file():
    before = probe_digest(SPACE, IMAGE, BOARD)
    assert probe_digest(replace(SPACE), IMAGE, replace(BOARD, flash_bytes=10**6)) == before
    assert (
        probe_digest(SPACE, GraphInput(mean=(120.0,)), replace(BOARD, name="other", backend=Table(path="x"))) == before
    )


# -- the files


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_probe_is_a_valid_file_of_the_devices_versions_that_runs(tmp_path, precision):
    device = replace(BOARD, opset=17, ir_version=8)
    path = tmp_path / "probe.onnx"
    write_probe(choose_probes(SPACE, OPTIONS)[0], precision, device, IMAGE, path, seed=3)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", 17)]
    assert model.ir_version == 8
    kinds = {node.op_type for node in model.graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")
    Local().runner(path)()


def test_the_same_seed_writes_the_same_file(tmp_path):
    architecture = choose_probes(SPACE, OPTIONS)[0]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_probe(architecture, "int8", BOARD, IMAGE, tmp_path / name, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
