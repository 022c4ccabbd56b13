"""Tables of blocks on a made-up device whose networks are sums of blocks, a constant and nothing else."""

import json

import numpy as np
import pytest

from latency_models.backends.memory import Memory
from latency_models.device import Device
from latency_models.lookup import Lookup, LookupLatency, segment_key
from latency_models.prediction import AdditivePredictor, Sample
from latency_models.probe import ProbeOptions, choose_blocks
from search_spaces.counts import macs
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample

SPACE = MixedSpace(depths=(1, 2), kernels=(3, 5), expansions=(2, 4))
DEVICE = Device(name="made-up", backend=Memory())


def price(segment):
    """Return a latency that no physical feature explains: a hash of the block decides half of it."""
    work = sum(macs(workload_of(segment)) for _ in range(1)) / 1e7
    return 0.01 + work * (1.0 + int(segment_key(segment)[:4], 16) / 65535)


def workload_of(segment):
    from search_spaces.workload import Workload

    return Workload((segment,), ("",))


@pytest.fixture(scope="module")
def networks():
    rows = sample(SPACE, 80, np.random.default_rng(0))
    workloads = [with_precision(lower(decode(SPACE, row)), None) for row in rows]
    return [Sample(workload, 0.05 + sum(map(price, workload.segments))) for workload in workloads]


@pytest.fixture(scope="module")
def blocks():
    found = [with_precision(lower(block), None) for block in choose_blocks(SPACE, ProbeOptions(blocks=5000))]
    return [Sample(workload, 0.02 + price(workload.segments[0])) for workload in found]


def test_a_block_alone_is_the_block_of_the_network(networks, blocks):
    known = {segment_key(block.workload.segments[0]) for block in blocks}
    seen = [segment_key(segment) for sample in networks for segment in sample.workload.segments]
    assert np.mean([key in known for key in seen]) > 0.9


def test_ten_networks_calibrate_a_table_of_measured_blocks(networks, blocks):
    predictor = Lookup().fit(DEVICE, [*blocks, *networks[:10]])
    rest = networks[10:]
    predicted = predictor.predict([item.workload for item in rest]).mean_ms
    error = np.abs(predicted / np.array([item.latency_ms for item in rest]) - 1.0)
    assert error.mean() < 0.03
    assert predictor.share_measured(rest[0].workload) > 0.8


def test_the_prediction_is_a_constant_and_a_price_of_every_block(networks, blocks):
    predictor = Lookup().fit(DEVICE, [*blocks, *networks[:20]])
    assert isinstance(predictor, AdditivePredictor)
    workload = networks[30].workload
    total = predictor.base_ms + sum(map(predictor.segment_ms, workload.segments))
    assert predictor.predict([workload]).mean_ms[0] == pytest.approx(total)


def test_blocks_never_timed_are_priced_by_their_features(networks, blocks):
    few = Lookup().fit(DEVICE, [*blocks[:40], *networks[:30]])
    rest = networks[30:]
    predicted = few.predict([item.workload for item in rest]).mean_ms
    truth = np.array([item.latency_ms for item in rest])
    assert np.abs(predicted / truth - 1.0).mean() < 0.15
    assert min(few.table.segment_ms(segment) for item in rest for segment in item.workload.segments) >= 0.0


def test_a_saved_table_predicts_the_same(networks, blocks):
    predictor = Lookup().fit(DEVICE, [*blocks, *networks[:10]])
    read = LookupLatency.from_dict(json.loads(json.dumps(predictor.to_dict())))
    workloads = [item.workload for item in networks]
    np.testing.assert_array_equal(read.predict(workloads).mean_ms, predictor.predict(workloads).mean_ms)
    with pytest.raises(MeasurementError, match="schema 0, expected 1"):
        LookupLatency.from_dict({**predictor.to_dict(), "schema": 0})


def test_networks_of_kernels_never_timed_are_out_of_range(networks, blocks):
    predictor = Lookup().fit(DEVICE, [*blocks, *networks[:10]])
    other = MixedSpace(kernels=(7,))
    strange = with_precision(lower(decode(other, sample(other, 1, np.random.default_rng(0))[0])), None)
    assert not predictor.predict([strange]).in_range[0]
    assert "depthwise.k7" in predictor.unseen(strange)


def test_without_timed_blocks_the_message_says_how_to_get_them(networks):
    with pytest.raises(MeasurementError, match=r"0 timed blocks and 80 timed networks.*raise `blocks` in \[probe\]"):
        Lookup().fit(DEVICE, networks)
