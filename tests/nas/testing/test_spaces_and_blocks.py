"""The conformance kit: it passes what conforms, and names the check and the sample of what does not."""

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.testing import (
    SPACE_CHECKS,
    BlockContract,
    ContractError,
    SpaceContract,
    check_block,
    check_space,
    gradients_reach_every_parameter,
    modules_match_their_lowering,
    onnx_equals_torch,
)
from search_spaces.architecture import BLOCKS, Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.lowering import lower_block
from search_spaces.mixed import MixedSpace
from search_spaces.space import Choice, decode


@dataclass(frozen=True)
class Small:
    """A space that conforms; its children break one rule each."""

    classes: int = 4

    @property
    def choices(self):
        return (Choice("width", (8, 16)), Choice("kernel", (3, 5)))

    def decode(self, values):
        stem = Conv(width=values["width"], kernel=values["kernel"], stride=2)
        return Architecture((1, 12, 12), ((stem,), (Classifier(classes=self.classes),)))


class Partial(Small):
    def decode(self, values):
        if values == {"width": 16, "kernel": 5}:
            raise KeyError("no such block")
        return super().decode(values)


class Hashed(Small):
    def decode(self, values):
        stem = Conv(width=8 + hash(str(values)) % 64, stride=2)
        return Architecture((1, 12, 12), ((stem,), (Classifier(classes=4),)))


class Forgetful(Small):
    calls: list[int] = []  # noqa: RUF012

    def decode(self, values):
        self.calls.append(1)
        return Architecture((1, 12, 12), ((Conv(width=8 * len(self.calls)),), (Classifier(classes=4),)))


class Shifting(Small):
    calls: list[int] = []  # noqa: RUF012

    @property
    def choices(self):
        self.calls.append(1)
        return (Choice("width", (8, 16)), Choice("kernel", tuple(range(3, 4 + 2 * len(self.calls), 2))))


class OtherClasses(Small):
    def decode(self, values):
        return Architecture((1, 12, 12), ((Conv(width=8, stride=2),), (Classifier(classes=5),)))


class Collapsing(Small):
    def decode(self, values):
        stages = ((Conv(width=8, stride=2),), (InvertedResidual(width=8, hidden=16, kernel=values["kernel"]),))
        return Architecture((3, 12, 12), (*stages, (Classifier(classes=-1),)))


class TestSmallSpace(SpaceContract):
    rows = 4

    @pytest.fixture
    def space(self):
        return Small()


class TestInvertedResidual(BlockContract):
    @pytest.fixture
    def example(self):
        return InvertedResidual(width=8, hidden=16, se=4), (8, 6, 6)


def test_a_space_of_the_library_passes_every_check():
    space = MixedSpace(widths=((8,), (16,)), depths=(1,), head_widths=(16,), kernels=(3,), expansions=(2,))
    found = check_space(space, name="mixed", samples=8, built=2)
    assert found.passed == tuple(SPACE_CHECKS)
    assert not found.failed
    assert str(found).startswith("space mixed passes (8 networks decoded, 2 built)\n  pass  choices are fixed")


@pytest.mark.parametrize(
    ("space", "check", "reason"),
    [
        (Partial(), "decode is total", "decode raises: KeyError: 'no such block'"),
        (Forgetful(), "JSON round trip", "decoding the same row twice gives two networks"),
        (Hashed(), "keys are stable across processes", "another process decodes another network"),
        (Shifting(), "choices are fixed", "`choices` differs from one call to the next"),
        (OtherClasses(), "costs are finite", "the network gives (1, 5), the space has classes=4"),
        (Collapsing(), "decode is total", "decode raises: "),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Small) else "",
)
def test_a_broken_space_is_told_with_its_first_failing_sample(space, check, reason):
    found = check_space(space, samples=6, built=1)
    assert found.failed == check
    assert reason in found.reason
    assert tuple(SPACE_CHECKS)[: len(found.passed) + 1] == (*found.passed, check)
    assert f"FAIL  {check}" in str(found)
    if found.sample:
        assert set(json.loads(found.sample)) == {"width", "kernel"}


def test_the_sample_of_a_partial_decoder_is_the_one_that_fails():
    found = check_space(Partial(), samples=6, built=1)
    values = json.loads(found.sample)
    with pytest.raises(KeyError):
        Partial().decode(values)
    assert decode(Small(), np.array([1, 1])) == Small().decode(values)


def test_a_space_within_a_function_cannot_be_found_by_other_processes():
    @dataclass(frozen=True)
    class Local(Small):
        pass

    found = check_space(Local(), samples=2, built=1)
    assert found.failed == "keys are stable across processes"
    assert "stands within a function" in found.reason


# -- blocks that break a rule


@pytest.fixture
def registered(monkeypatch):
    """Register blocks for one test alone."""
    BLOCKS.load()
    for name in ("_members", "_names"):
        monkeypatch.setattr(BLOCKS, name, dict(getattr(BLOCKS, name)))
    return lambda block: BLOCKS.register("of_a_test")(type(block)) and block


class WithUnused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.unused = nn.Conv2d(4, 4, 1), nn.Linear(3, 3)

    def forward(self, x):
        return self.conv(x)


class WithoutGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.second(self.first(x).detach())


class TimesZero(nn.Module):
    """Has a gradient everywhere, which for its first convolution is always zero."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.a(x) * 0.0 + self.b(x)


class Constant(nn.Module):
    """Gives zeros for every input, as NAS-Bench-201's cell of six times "none"."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.conv(x) * 0.0


class ZeroAtFirst(nn.Module):
    """A residual branch that is off at the start (its last weight is zero), with a ReLU that is off by its bias."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        nn.init.constant_(self.first.bias, -100.0)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x):
        return x + self.last(self.first(x).relu())


class Different(nn.Module):
    """Computes in training and in evaluation what it does not on the meta device, where it is lowered."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        return y if x.is_meta else 2.0 * y


class Hidden(nn.Module):
    """As `Different`, by an operator that cannot be recorded, so that only its outputs tell."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        return y if x.is_meta else y.cumsum(1)


class Torn(nn.Module):
    def forward(self, x):
        return x.relu() if x.is_meta else x.reshape(7, -1)


class Erring(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.conv(x) if x.is_meta else torch.full_like(self.conv(x), torch.nan)


KERNELS = itertools.cycle((1, 3))  # a coin that never gives seven equal builds


@dataclass(frozen=True)
class Wrapped:
    kind: str = "WithUnused"

    def build(self, input_shape):
        known = (WithUnused, WithoutGradient, TimesZero, Constant, ZeroAtFirst, Different, Erring, Hidden, Torn)
        if self.kind == "Changing":
            return nn.Conv2d(4, 4, kernel := next(KERNELS), padding=kernel // 2)
        return {cls.__name__: cls for cls in known}[self.kind]()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("WithUnused", "the module has 32 parameters, its lowering 20: one is never used"),
        ("WithoutGradient", r"no gradient reaches first\.weight"),
        ("TimesZero", r"the gradient of a\.weight is always zero"),
        ("Different", r"executes with data something else .* \(1 operators, and 2\)"),
        ("Hidden", "the written network differs from torch by .* does its forward ask for data or the device"),
        ("Torn", r"\"Torn\"} fails with data: RuntimeError: .*shape.*test_spaces_and_blocks\.py:\d+, in forward"),
        (
            "Changing",
            r"build is not deterministic: .*\"kind\": \"Changing\".*conv with (kernel|padding) \(\d, \d\), and",
        ),
        ("Erring", "a fresh module gives values that are not finite"),
    ],
)
def test_a_broken_block_is_told_with_its_json(kind, reason, registered):
    block = registered(Wrapped(kind))
    with pytest.raises(ContractError, match=reason) as error:
        check_block(block, (4, 5, 5))
    assert json.loads(error.value.sample) == {"type": "of_a_test", "kind": kind}


@pytest.mark.parametrize("kind", ["Constant", "ZeroAtFirst"])
def test_zero_gradients_of_dead_networks_and_of_zero_weights_at_the_start_pass(kind, registered):
    check_block(registered(Wrapped(kind)), (4, 5, 5))


@dataclass
class Thawed:
    def build(self, input_shape):
        return nn.ReLU()


@dataclass(frozen=True)
class Failing:
    table: tuple[int, ...] = ()

    def build(self, input_shape):
        return nn.Conv2d(4, 4, self.table[3])


MADE = {
    "thawed": Thawed,
    "failing": Failing,
    "of a list": lambda: Failing(table=[1]),
    **{kind: functools.partial(Wrapped, kind) for kind in ("Changing", "Different", "Hidden")},
}


@dataclass(frozen=True)
class WithBlock(Small):
    """Has a block of the test in its middle."""

    block: str = "thawed"
    lowers: bool = False

    def decode(self, values):
        block = MADE[self.block]()
        if self.lowers:  # as every ChainSpace does
            lower_block(block, (4, 6, 6))
        stages = ((Conv(width=4, kernel=values["kernel"], stride=2),), (block,), (Classifier(classes=4),))
        return Architecture((1, 12, 12), stages)


@pytest.mark.parametrize("lowers", [False, True], ids=["decode alone", "decode lowers"])
@pytest.mark.parametrize(
    ("block", "check", "reasons"),
    [
        ("Changing", "blocks build alike every time", ("build is not deterministic", '"kind": "Changing"')),
        ("thawed", "blocks build and lower", ("'Thawed': declare Thawed @dataclass(frozen=True)",)),
        ("failing", "blocks build and lower", ("Failing(table=()) cannot be built", "IndexError", ", in build)")),
        ("of a list", "blocks build and lower", ("'list': fields and options hold tuples",)),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_a_block_does_wrong_is_not_put_down_to_decode(block, lowers, check, reasons, registered):
    registered(MADE[block]())
    found = check_space(WithBlock(block=block, lowers=lowers), samples=3, built=1)
    assert found.failed == check
    assert "decode is total" in found.passed
    assert all(reason in found.reason for reason in reasons)
    assert set(json.loads(found.sample)) == {"width", "kernel"}


@pytest.mark.parametrize(
    ("kind", "check"), [("Different", modules_match_their_lowering), ("Hidden", onnx_equals_torch)]
)
def test_a_block_that_computes_otherwise_with_data_is_named_among_the_others(kind, check, registered):
    registered(Wrapped(kind))
    with pytest.raises(ContractError, match=f'"kind": "{kind}"'):
        check(WithBlock(block=kind), np.zeros((1, 2), dtype=np.int64))


def test_a_decoder_that_raises_is_told_with_its_file_and_line():
    found = check_space(Partial(), samples=6, built=1)
    text = Path(__file__).read_text().splitlines()
    line = 1 + next(number for number, code in enumerate(text) if "raise KeyError" in code)
    assert found.reason.endswith(f"test_spaces_and_blocks.py:{line}, in decode)")


class StoppedSpace(Small):
    def decode(self, values):
        stages = ((Conv(width=4, stride=2),), (Wrapped("TimesZero"),), (Classifier(classes=4),))
        return Architecture((1, 12, 12), stages)


def test_a_network_with_a_part_that_never_learns_fails_the_check_of_gradients(registered):
    registered(Wrapped("TimesZero"))
    with pytest.raises(ContractError, match=r"the gradient of stages\.1\.0\.a\.weight is always zero") as error:
        gradients_reach_every_parameter(StoppedSpace(), np.zeros((1, 2), dtype=np.int64))
    assert json.loads(error.value.sample) == {"width": 8, "kernel": 3}


def test_a_block_that_is_not_registered_is_told():
    with pytest.raises(ContractError, match="the block has no JSON form"):
        check_block(Wrapped(), (4, 5, 5))
