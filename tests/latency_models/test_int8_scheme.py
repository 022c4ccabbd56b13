"""The 8-bit scheme follows the device's instruction set, never this machine's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from latency_models.backends.memory import Memory
from latency_models.device import Device
from latency_models.failures import FileFailure, UnsupportedOperator, all_timed, failure
from latency_models.graph import GraphInput
from latency_models.int8_scheme import S8S8, U8S7, U8S8, candidates, choose_scheme, suited, words
from latency_models.timing import Timing
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan
from search_spaces.space import decode, sample


@pytest.mark.parametrize(
    ("machine", "sets", "plans"),
    [
        ("x86_64", "avx2 avx512f avx512_vnni", (U8S8,)),
        ("x86_64", "avx2 avx_vnni", (U8S8,)),
        ("AMD64", "avx2", (U8S7,)),
        ("x86_64", "avx2 avx512f", (U8S7,)),
        ("aarch64", "asimd asimddp i8mm", (S8S8, U8S8)),
        ("aarch64", "asimd", (S8S8, U8S8)),
        ("armv7l", "", (S8S8, U8S8)),
        ("", "", (U8S8,)),
    ],
)
def test_schemes_by_instruction_set(machine, sets, plans):
    assert candidates({"machine": machine, "instruction_sets": sets}) == plans


@dataclass(frozen=True)
class Arm:
    """A deterministic board that takes `signed` ms for files of signed activations and `unsigned` ms for the others."""

    signed: float
    unsigned: float
    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {"machine": "aarch64", "instruction_sets": "asimd asimddp"}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        def ms(path):
            model = onnx.load(path)
            kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name in _zero_points(model)}
            return self.signed if onnx.TensorProto.UINT8 not in kinds else self.unsigned

        return [Timing(path.name, (np.array([ms(path)]),)) for path in artefacts]


def _zero_points(model):
    """Return the names of zero points of activations, which are scalars."""
    return {
        node.input[2]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[0] != "image"
    }


@pytest.fixture
def networks():
    space = MixedSpace(depths=(1,))
    return [decode(space, row) for row in sample(space, 4, np.random.default_rng(0))]


@dataclass(frozen=True)
class Lacking(Arm):
    """The same board with a runtime that lacks kernels for files of one kind of activations, or for both."""

    lacks: tuple[str, ...] = ("signed",)

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        def outcome(path):
            (timing,) = Arm(1.0, 2.0).measure([path], path)
            kind = "signed" if timing.latency_ms == 1.0 else "unsigned"
            return failure("unsupported", path.name, "no kernel", device="the board") if kind in self.lacks else timing

        reference_outcome = outcome(reference)
        if isinstance(reference_outcome, FileFailure):
            raise reference_outcome
        return all_timed([outcome(path) for path in artefacts])


@pytest.mark.parametrize(("lacks", "plan"), [("signed", U8S8), ("unsigned", S8S8)])
def test_a_scheme_whose_files_the_device_refuses_is_not_taken(networks, tmp_path, lacks, plan):
    backend = Lacking(1.0, 2.0, lacks=(lacks,))
    device = Device(name="pi", backend=backend)
    scheme = choose_scheme(device, backend.fingerprint(), networks, GraphInput(), folder=tmp_path)
    assert scheme.plan == replace(plan, pad_depthwise=False)
    assert scheme.reason == f"{'U8S8' if plan == U8S8 else 'S8S8'}, since the device refuses files in " + (
        "S8S8" if plan == U8S8 else "U8S8"
    )


def test_a_device_that_refuses_both_schemes_says_why(networks, tmp_path):
    backend = Lacking(1.0, 2.0, lacks=("signed", "unsigned"))
    device = Device(name="pi", backend=backend)
    with pytest.raises(UnsupportedOperator, match="no kernel"):
        choose_scheme(device, backend.fingerprint(), networks, GraphInput(), folder=tmp_path)


@pytest.mark.parametrize(("signed", "unsigned", "plan"), [(1.0, 1.3, S8S8), (1.3, 1.0, U8S8)], ids=["S8S8", "U8S8"])
def test_on_arm_the_scheme_that_measures_faster_is_taken(networks, tmp_path, signed, unsigned, plan):
    backend = Arm(signed, unsigned)
    device = Device(name="pi", backend=backend)
    scheme = choose_scheme(device, backend.fingerprint(), networks, GraphInput(), folder=tmp_path)
    assert scheme.plan == replace(plan, pad_depthwise=False)
    assert "1.30 times as fast" in scheme.reason


def test_a_scheme_that_the_user_names_is_kept(networks, tmp_path):
    device = Device(name="pi", backend=Arm(9.0, 1.0), quantization=S8S8)
    scheme = choose_scheme(device, device.backend.fingerprint(), networks, GraphInput(), folder=tmp_path)
    assert scheme.plan == replace(S8S8, pad_depthwise=False)
    assert "as the device's description says" in scheme.reason
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Described:
    """A device that tells its machine and measures nothing."""

    machine: str
    live: ClassVar[bool] = False

    def fingerprint(self) -> Mapping[str, str]:
        return {"machine": self.machine, "instruction_sets": "avx512_vnni"}


@pytest.mark.parametrize(
    ("backend", "pads"),
    [
        (Described("x86_64"), True),
        (Described("AMD64"), True),
        (Described(""), True),
        (Described("aarch64"), False),
        (Described("armv7l"), False),
        (Described("riscv64"), False),
        (Memory(), False),
    ],
    ids=["x86", "windows", "untold", "arm", "old arm", "risc-v", "memory"],
)
@pytest.mark.parametrize("named", [None, S8S8], ids=["found", "named"])
def test_channels_are_padded_for_x86_alone(backend, pads, named, tmp_path):
    device = Device(name="board", backend=backend, quantization=named)
    scheme = choose_scheme(device, backend.fingerprint(), [], GraphInput(), folder=tmp_path)
    assert scheme.plan.pad_depthwise is pads
    assert suited(device, backend.fingerprint(), scheme).plan.pad_depthwise is pads


def test_a_description_may_leave_padding_out(tmp_path):
    device = Device(name="pc", backend=Described("x86_64"), quantization=QuantizationPlan(pad_depthwise=False))
    scheme = choose_scheme(device, device.backend.fingerprint(), [], GraphInput(), folder=tmp_path)
    assert not scheme.plan.pad_depthwise


def test_files_are_no_newer_than_the_runtime_opens():
    device = Device(name="old", backend=Arm(1.0, 2.0))
    found = suited(device, {"opset": "15", "ir_version": "7"}, _scheme(U8S7))
    assert (found.opset, found.ir_version, found.plan) == (15, 7, U8S7)
    unknown = suited(device, {}, _scheme(U8S8))
    assert (unknown.opset, unknown.ir_version) == (device.opset, device.ir_version)


def _scheme(plan):
    from latency_models.int8_scheme import Scheme

    return Scheme(plan=plan, reason="")


def test_words_are_those_of_the_field():
    assert [words(plan) for plan in (U8S8, U8S7, S8S8)] == ["U8S8", "U8S7", "S8S8"]
    assert Device(name="x", backend=Arm(1, 1)).plan == QuantizationPlan()
