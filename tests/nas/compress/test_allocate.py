import math

import numpy as np
import pytest

from nas.compress.allocate import allocate, kept_channels
from nas.compress.channels import find_groups
from tests.nas.train.tiny import tiny

NETWORK = tiny()
GROUPS, _ = find_groups(NETWORK, alignment=8)
SIZES = {group.name: group.size for group in GROUPS}
FIRST, SECOND = "stages.1.0.hidden", "stages.1.1.hidden"


def widths(architecture):
    return {
        group.name: getattr(architecture.stages[group.fields[0][0]][group.fields[0][1]], group.fields[0][2])
        for group in GROUPS
    }


def linear(architecture):
    """A device on which every channel costs 1 ms."""
    return float(sum(widths(architecture).values()))


def even(**changed):
    return {name: np.full(size, changed.get(name, 1.0)) for name, size in SIZES.items()}


def allocated(importance, target_ms, *, price=linear, alignment=8, **options):
    return allocate(NETWORK, GROUPS, importance, target_ms=target_ms, price=price, alignment=alignment, **options)


def test_groups_are_those_the_figures_below_assume():
    assert SIZES == {FIRST: 24, "stages.1.0.width": 16, SECOND: 32, "stages.2.0.width": 32}


def test_least_importance_for_each_millisecond_goes_first():
    importance = {**even(), SECOND: np.full(32, 0.1)}
    found = allocated(importance, linear(NETWORK) - 16)
    assert found.sizes == {**SIZES, SECOND: 16}
    assert found.reached
    assert found.predicted_ms == linear(NETWORK) - 16 == linear(found.architecture)


def test_more_importance_goes_where_it_buys_more_time():
    def dear_second(architecture):
        return linear(architecture) + 20 * widths(architecture)[SECOND]

    importance = {**even(), SECOND: np.full(32, 2.0)}
    assert allocated(importance, linear(NETWORK) - 1).sizes == {**SIZES, FIRST: 16}
    found = allocated(importance, dear_second(NETWORK) - 1, price=dear_second)
    assert found.sizes == {**SIZES, SECOND: 24}


def test_removed_channels_are_the_least_important_of_the_group():
    importance = {**even(), FIRST: np.concatenate([np.full(8, 5.0), np.full(8, 0.001), np.full(8, 5.0)])}
    found = allocated(importance, linear(NETWORK) - 8)
    assert found.sizes == {**SIZES, FIRST: 16}
    assert kept_channels(importance[FIRST], 16) == [*range(8), *range(16, 24)]


def test_met_target_changes_nothing():
    found = allocated(even(), linear(NETWORK))
    assert found.architecture == NETWORK
    assert found.reached


def test_every_group_keeps_one_aligned_unit_and_an_unreachable_target_is_said():
    found = allocated(even(), 0.0)
    assert set(found.sizes.values()) == {8}
    assert not found.reached


def test_no_group_loses_more_than_the_largest_cut():
    found = allocated(even(), 0.0, max_cut=0.5)
    assert found.sizes == {FIRST: 16, "stages.1.0.width": 8, SECOND: 16, "stages.2.0.width": 16}


def test_steps_that_save_nothing_are_joined_until_they_do():
    def lanes_of_16(architecture):
        return float(sum(16 * math.ceil(width / 16) for width in widths(architecture).values()))

    found = allocated(even(), lanes_of_16(NETWORK) - 1, price=lanes_of_16)
    assert found.sizes == {**SIZES, FIRST: 16}
    found = allocated({**even(), FIRST: np.full(24, 100.0)}, lanes_of_16(NETWORK) - 1, price=lanes_of_16)
    assert sorted(found.sizes.values()) == [16, 16, 24, 32]


def test_device_on_which_width_costs_nothing_is_left_alone():
    found = allocated(even(), 0.5, price=lambda architecture: 1.0)
    assert found.architecture == NETWORK
    assert not found.reached


def test_each_architecture_is_priced_once():
    asked = []

    def counting(architecture):
        asked.append(architecture.key)
        return linear(architecture)

    allocated(even(), 0.0, price=counting)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("alignment", [4, 16])
def test_sizes_are_multiples_of_the_alignment_or_what_they_were(alignment):
    found = allocated(even(), 0.0, alignment=alignment)
    assert all(size % alignment == 0 or size == SIZES[name] for name, size in found.sizes.items())
