import itertools

import numpy as np
import pytest
from torch import nn

from search_spaces.lowering import lower, record
from search_spaces.mcunet import NETWORKS, mcunet
from search_spaces.memory import Buffer, _place, _size, bound_bytes, mcunet_peak_bytes, peak_bytes, plan_memory
from search_spaces.mixed import MixedSpace
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.space import SEARCH_SPACES, decode, sample


def int8(architecture):
    return with_precision(lower(architecture), QuantizationPlan())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.widen, self.narrow = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return x + self.narrow(self.widen(x))


def test_bound_by_hand():
    # While narrowing: input (4 channels, kept for the sum), wide (16) and narrow (4) are alive: 24 x 64 floats.
    assert peak_bytes(record(Residual(), (4, 8, 8))) == (4 + 16 + 4) * 64 * 4


def test_reshape_takes_no_memory():
    class Flat(nn.Module):
        def forward(self, x):
            return x.flatten(1).relu()

    assert peak_bytes(record(Flat(), (4, 8, 8))) == 2 * 4 * 64 * 4


def test_plan_never_lets_living_buffers_overlap(rng):
    space = MixedSpace()
    for row in sample(space, 10, rng):
        plan = plan_memory(lower(decode(space, row)), alignment=16)
        for (a, start), (b, other) in itertools.combinations(zip(plan.buffers, plan.offsets, strict=True), 2):
            if a.overlaps(b):
                assert start + a.num_bytes <= other or other + b.num_bytes <= start
        assert plan.arena_bytes >= plan.bound_bytes
        assert all(offset % 16 == 0 for offset in plan.offsets)


def test_plan_of_a_chain_meets_the_liveness_bound(rng):
    space = MixedSpace()
    for row in sample(space, 10, rng):
        workload = lower(decode(space, row))
        assert plan_memory(workload).bound_bytes == peak_bytes(workload)
        assert plan_memory(workload).is_optimal


def random_buffers(rng) -> list[Buffer]:
    starts = rng.integers(0, 6, 6)
    return [
        Buffer((n,), int(rng.integers(1, 9)), int(start), int(start + rng.integers(0, 4)))
        for n, start in enumerate(starts)
    ]


def test_no_order_of_placing_beats_the_bound(rng):
    for _ in range(20):
        buffers = random_buffers(rng)
        best = min(_size(buffers, _place(buffers, order)) for order in itertools.permutations(range(len(buffers))))
        assert best >= bound_bytes(buffers)


def test_bound_equals_a_count_of_bytes_alive(rng):
    for _ in range(20):
        buffers = random_buffers(rng)
        alive = np.zeros(16, dtype=int)
        for buffer in buffers:
            alive[buffer.first : buffer.last + 1] += buffer.num_bytes
        assert bound_bytes(buffers) == alive.max()


def test_alignment_must_be_positive():
    with pytest.raises(ValueError, match="alignment must be at least 1"):
        plan_memory(record(nn.Identity(), (1, 2, 2)), alignment=0)


def test_a_network_without_operators_holds_its_input():
    assert peak_bytes(record(nn.Identity(), (2, 4, 4))) == 2 * 16 * 4


class Depthwise(nn.Module):
    def __init__(self, stride, *, read_again=False):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=stride, padding=1, groups=8)
        self.read_again = read_again

    def forward(self, x):
        wide = self.first(x)
        y = self.depthwise(wide)
        return wide + y if self.read_again else y.relu()


@pytest.mark.parametrize(("stride", "plane"), [(1, 64), (2, 16)])
def test_depthwise_in_place_needs_one_channel_besides_its_input(stride, plane):
    workload = record(Depthwise(stride), (2, 8, 8))
    assert peak_bytes(workload) == (8 * 64 + 8 * plane) * 4
    assert peak_bytes(workload, in_place=True) == max(8 * 64 + plane, (2 + 8) * 64) * 4
    alone = record(nn.Conv2d(8, 8, 3, stride, 1, groups=8), (8, 8, 8))
    assert peak_bytes(alone, in_place=True) == (8 * 64 + plane) * 4


def test_depthwise_keeps_an_input_that_is_read_again():
    workload = record(Depthwise(1, read_again=True), (2, 8, 8))
    assert peak_bytes(workload, in_place=True) == peak_bytes(workload) == 3 * 8 * 64 * 4


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mixed", "mcunet", "hybrid"])
def test_in_place_never_needs_more_and_plans_hold(name, rng):
    space = SEARCH_SPACES.get(name)()
    for row in sample(space, 5, rng):
        workload = int8(decode(space, row))
        plan = plan_memory(workload, alignment=4, in_place=True)
        assert peak_bytes(workload, in_place=True) <= peak_bytes(workload)
        assert plan_memory(workload, in_place=True).bound_bytes == peak_bytes(workload, in_place=True)
        starts = {}
        for (a, start), (b, other) in itertools.combinations(zip(plan.buffers, plan.offsets, strict=True), 2):
            if a.overlaps(b):
                assert start + a.num_bytes <= other or other + b.num_bytes <= start
        for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
            if buffer.stack >= 0:
                starts.setdefault(buffer.stack, set()).add(offset - buffer.base)
        assert all(len(found) == 1 for found in starts.values())
        assert starts or name == "hybrid"


def test_mobilenet_v2_has_the_peak_that_mcunet_v2_prints():
    # Figure 1 of arXiv:2110.15352: 1372 kB in 8 bits at 224 pixels, with depthwise convolutions in place.
    workload = int8(mobilenet_v2())
    assert mcunet_peak_bytes(workload, in_place=True) == peak_bytes(workload, in_place=True) == 1372 * 1024


@pytest.mark.parametrize("variant", NETWORKS)
def test_mcunets_formula_equals_its_evaluation_on_the_block_list(variant):
    side, stem, rows = NETWORKS[variant]
    assert mcunet_peak_bytes(int8(mcunet(variant))) == formula(side, stem, rows)


def formula(side, stem, rows):
    """Evaluate the formula by hand: squares of sides and channel counts, without a workload."""
    here, sums = side // 2, [3 * side**2 + stem * (side // 2) ** 2]
    width = stem
    for number, (out, hidden, _kernel, stride) in enumerate(rows):
        there = -(-here // stride)
        kept = width * here**2 if stride == 1 and width == out and number else 0
        sums += [width * here**2 + hidden * here**2] if number else []
        sums += [hidden * here**2 + hidden * there**2 + kept, (hidden + out) * there**2]
        width, here = out, there
    return max(sums)
