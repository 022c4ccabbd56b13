from dataclasses import replace

import numpy as np
import pytest

from latency_models.transfer.operator_prior import operator_prior
from latency_models.transfer.operators import Lowering, Operator, tabulate
from latency_models.transfer.population import Population, Scales, operator_times, scales_of

CONV = Operator(
    kind="dense", macs=2e6, input_elements=1e4, output_elements=1e4, weight_elements=2e3, kernel_size=3, out_channels=32
)
SCALES = Scales(macs=1e6, traffic=1e4, weights=1e3, output=1e4)


def times(operator, **options):
    return operator_times(tabulate([operator]), SCALES, Population(num_devices=64, **options))[0]


def test_an_operator_costs_the_same_whatever_stands_beside_it():
    beside = operator_times(tabulate([Operator(kind="add"), CONV]), SCALES, Population(num_devices=64))[1]
    np.testing.assert_array_equal(beside, times(CONV))


@pytest.mark.parametrize(
    "change",
    [{"macs": 4e6}, {"input_elements": 4e4}, {"weight_elements": 8e3}, {"out_channels": 33}],
    ids=["macs", "traffic", "weights", "unaligned channels"],
)
def test_more_work_is_never_faster_and_slower_on_some_devices(change):
    plain, more = times(CONV), times(replace(CONV, **change))
    assert (more >= plain * (1 - 1e-12)).all()
    assert (more > plain * 1.001).any()


def test_elided_operators_cost_nothing_on_some_devices_and_all_on_others():
    share = times(replace(CONV, elidable=True)) / times(CONV)
    assert sorted(set(share.round(9))) == [0.0, 0.2, 1.0]


def test_overlapped_operators_cost_a_share():
    share = times(replace(CONV, overlappable=True)) / times(CONV)
    assert (share >= 0.0).all()
    assert (share <= 1.0).all()
    assert np.ptp(share) > 0.5


def test_a_roofline_without_overheads_is_the_sum_of_compute_and_memory_time():
    plain = Population(
        num_devices=2, launch_spread=0.0, launch_kind_spread=0.0, compute_spread=0.0, memory_level=0.0,
        memory_spread=0.0, memory_kind_spread=0.0, weight_level=0.0, weight_spread=0.0, alignments=(1,),
        small_tensor_exponents=(0.0,), joins=(1.0,),
    )  # fmt: skip
    found = operator_times(tabulate([CONV]), SCALES, plain)[0]
    body = 2.0 + 2.0 + 2.0  # MACs, traffic and weights, each twice what is typical
    assert set(found.round(9)) <= {round(body + 1.0, 9), body, round(float(np.hypot(body, 1.0)), 9)}


def test_scales_are_medians_of_what_there_is():
    table = tabulate([CONV, replace(CONV, macs=6e6), Operator(kind="add", input_elements=4e4, output_elements=2e4)])
    assert scales_of(table) == Scales(macs=4e6, traffic=2e4, weights=2e3, output=2e4)


def test_seeds_are_devices():
    np.testing.assert_array_equal(times(CONV, seed=3), times(CONV, seed=3))
    assert (times(CONV, seed=3) != times(CONV, seed=4)).all()


def test_a_population_needs_two_devices():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Population(num_devices=1)


def test_the_prior_has_the_population_s_mean_and_covariance():
    rng = np.random.default_rng(0)
    operators = [replace(CONV, macs=float(10**power), out_channels=power * 7) for power in range(4, 9)]
    lowering = Lowering(name="x", operators=tabulate(operators), counts=rng.poisson(2.0, (30, 5)).astype(float))
    population = Population(num_devices=64)
    prior = operator_prior(lowering, population)
    view = prior.view(lowering.counts @ prior.rows(lowering.operators))
    on_devices = lowering.counts @ operator_times(lowering.operators, prior.scales, population)
    relative = on_devices / on_devices.mean(axis=0) - 1.0
    np.testing.assert_allclose(view.mean[:, 0], relative.mean(axis=1), atol=1e-9)
    deviation = relative - relative.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(view.directions @ view.directions.T, deviation @ deviation.T / 64, atol=1e-9)


def test_families_unknown_to_the_prior_add_no_private_deviation():
    lowering = Lowering(name="x", operators=tabulate([CONV]), counts=np.array([[1.0], [2.0]]))
    prior = operator_prior(lowering, Population(num_devices=8))
    other = prior.rows(tabulate([replace(CONV, family="other")]))
    assert prior.rows(lowering.operators)[0, -1] > 0.0
    assert other[0, -1] == 0.0
