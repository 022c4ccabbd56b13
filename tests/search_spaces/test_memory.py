import itertools

import numpy as np
import pytest
from torch import nn

from search_spaces.lowering import lower, record
from search_spaces.memory import Buffer, _bound, _place, _size, peak_bytes, plan_memory
from search_spaces.mixed import MixedSpace
from search_spaces.space import decode, sample


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
        assert best >= _bound(buffers)


def test_bound_equals_a_count_of_bytes_alive(rng):
    for _ in range(20):
        buffers = random_buffers(rng)
        alive = np.zeros(16, dtype=int)
        for buffer in buffers:
            alive[buffer.first : buffer.last + 1] += buffer.num_bytes
        assert _bound(buffers) == alive.max()


def test_alignment_must_be_positive():
    with pytest.raises(ValueError, match="alignment must be at least 1"):
        plan_memory(record(nn.Identity(), (1, 2, 2)), alignment=0)


def test_a_network_without_operators_holds_its_input():
    assert peak_bytes(record(nn.Identity(), (2, 4, 4))) == 2 * 16 * 4
