"""What rows of a space cost, and what no model may be asked."""

import dataclasses

import numpy as np

from nas.search.objectives import Budget, RowCosts
from search_spaces.space import decode, sample
from tests.nas.search.simulated import SPACE, costs, device, predictors

FAR = "far outside the timed latencies"


def test_networks_within_what_was_timed_are_not_held_up():
    rows = sample(SPACE, 50, np.random.default_rng(1))
    assert (costs(Budget(latency_ms=10.0))(rows).excess[FAR] <= 0).all()


def test_a_network_far_outside_the_timed_latencies_is_infeasible_on_both_paths():
    target = device()
    fast = {
        precision: dataclasses.replace(known, range_ms=(1e-6, 1e-5)) for precision, known in predictors(target).items()
    }
    judged = RowCosts(SPACE, target, fast, Budget(latency_ms=10.0))
    rows = sample(SPACE, 20, np.random.default_rng(1))
    by_row, by_network = judged(rows), judged.of([decode(SPACE, row) for row in rows])
    assert not by_row.feasible.any()
    assert not by_network.feasible.any()
    assert np.allclose(by_row.excess[FAR], by_row.figures["latency_ms"] / 2e-5 - 1.0)
    assert np.allclose(by_row.excess[FAR], by_network.excess[FAR])
