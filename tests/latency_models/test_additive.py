import json

import numpy as np
import pytest

from latency_models.additive import SCHEMA, Additive, AdditiveLatency
from latency_models.backends.table import Table
from latency_models.device import Device
from latency_models.features import features
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, AdditivePredictor, Sample
from search_spaces.errors import MeasurementError
from search_spaces.lowering import lower
from search_spaces.mixed import MixedSpace
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.space import decode, sample

DEVICE = Device(name="board", backend=Table(path="board.csv"))
LANES = 16
BASE_MS = 0.02
PRICES = {
    "pointwise:padded_macs": 2e-7,
    "depthwise.k3:padded_macs": 9e-7,
    "depthwise.k5:padded_macs": 6e-7,
    "dense.k3:macs": 3e-7,
    "pointwise:elements": 4e-7,
    "depthwise.k3:count": 0.003,
    "activation.hard_swish:elements": 5e-7,
    "vector:count": 0.004,
    "add:elements": 1e-7,
    "channel_shuffle:elements": 3e-7,
    "linear:parameters": 1e-6,
}
"""The device these tests make up; the features are linear in it, so the model can find it exactly."""

SMALL = {"widths": ((8, 20), (24, 36), (40, 64)), "expansions": (2, 3), "depths": (1, 2, 3), "head_widths": (60, 64)}
"""A space of few distinct blocks, since lowering a block takes milliseconds; widths fill no, some and all lanes."""


def draw(count, seed, **options):
    space = MixedSpace(**SMALL | options)
    return [lower(decode(space, row)) for row in sample(space, count, np.random.default_rng(seed))]


def true_ms(workload, lanes=LANES):
    found = features(workload, lanes=lanes)
    return BASE_MS + sum(price * found.get(name, 0.0) for name, price in PRICES.items())


def samples(workloads, *, noise=0.0, seed=0, lanes=LANES):
    rng = np.random.default_rng(seed)
    return [
        Sample(workload, true_ms(workload, lanes) * float(np.exp(rng.normal(0.0, noise)) if noise else 1.0))
        for workload in workloads
    ]


@pytest.fixture(scope="module")
def known():
    return draw(220, seed=1)


@pytest.fixture(scope="module")
def fresh():
    return draw(300, seed=2)


@pytest.fixture(scope="module")
def fitted(known):
    return Additive().fit(DEVICE, samples(known))


@pytest.fixture(scope="module")
def noisy(known):
    return Additive().fit(DEVICE, samples(known, noise=0.04))


# -- recovery


def test_a_device_that_is_additive_is_recovered_exactly_on_networks_never_seen(fitted, fresh):
    truth = np.array([true_ms(workload) for workload in fresh])
    assert fitted.predict(fresh).mean_ms == pytest.approx(truth, rel=1e-6)
    assert np.abs(fitted.residuals).max() < 1e-6


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_the_width_of_the_vector_unit_is_found(known, lanes):
    assert Additive().fit(DEVICE, samples(known, lanes=lanes)).lanes == lanes


def test_no_price_is_negative_and_noise_does_not_make_one(fitted, noisy):
    for model in (fitted, noisy):
        assert model.base_ms >= 0.0
        assert min(model.prices.values()) > 0.0


def test_more_of_the_same_is_never_faster(noisy):
    deeper = draw(1, 0, widths=((16,),), depths=(3,), kernels=(3,), families=("mobilenet",))[0]
    shallow = draw(1, 0, widths=((16,),), depths=(2,), kernels=(3,), families=("mobilenet",))[0]
    found = noisy.predict([shallow, deeper]).mean_ms
    assert found[0] < found[1]


def test_relative_errors_count_so_small_networks_are_predicted_as_well(noisy, fresh):
    truth = np.array([true_ms(workload) for workload in fresh])
    error = np.abs(noisy.predict(fresh).mean_ms / truth - 1)
    small = truth < np.quantile(truth, 0.25)
    assert error[small].mean() < 2 * error[~small].mean()
    assert error.mean() < 0.03  # under the noise of one sample, 4 %


def test_what_is_least_is_the_relative_error(known):
    # Of one network timed at 1 and at 3 ms, (1/1 + 1/3) / (1/1 + 1/9) = 1.2 ms is best; absolute errors would say 2.
    told = [Sample(known[0], latency) for latency in (1.0, 3.0) * 10]
    assert Additive().fit(DEVICE, told).predict(known[:1]).mean_ms == pytest.approx([1.2], rel=1e-6)


def test_the_mean_is_the_constant_and_a_price_for_every_segment(noisy, fresh):
    assert isinstance(noisy, AdditivePredictor)
    sums = [noisy.base_ms + sum(map(noisy.segment_ms, workload.segments)) for workload in fresh[:20]]
    assert noisy.predict(fresh[:20]).mean_ms == pytest.approx(sums)


def test_eight_bit_workloads_are_fitted_like_any_other(known, fresh):
    def quantized(workloads):
        return [with_precision(workload, QuantizationPlan()) for workload in workloads]

    model = Additive().fit(DEVICE, samples(quantized(known)))
    truth = np.array([true_ms(workload) for workload in quantized(fresh)])
    assert model.predict(quantized(fresh)).mean_ms == pytest.approx(truth, rel=1e-6)


def test_the_same_samples_give_the_same_model(known, noisy):
    assert Additive().fit(DEVICE, samples(known, noise=0.04)).to_dict() == noisy.to_dict()


# -- intervals


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_quantiles_hold_as_many_new_networks_as_they_say(noisy, fresh, level):
    # 300 networks and 220 residuals: the share has a standard deviation of about 0.04 at the median, 0.02 at 0.95.
    truth = np.array([known.latency_ms for known in samples(fresh, noise=0.04, seed=9)])
    held = (truth <= noisy.predict(fresh).quantile_ms(level)).mean()
    assert held == pytest.approx(level, abs=0.10 if level == 0.5 else 0.055)


def test_residuals_are_of_fits_that_did_not_see_the_network(known):
    # Fitted to what it is judged by, a model of this many features would show a fraction of the noise.
    few = samples(known[:40], noise=0.04)
    model = Additive(lanes=(LANES,)).fit(DEVICE, few)
    seen = np.array([sample.latency_ms for sample in few]) / model.predict([s.workload for s in few]).mean_ms - 1
    assert np.abs(model.left_out).mean() > 1.5 * np.abs(seen).mean()
    assert np.abs(model.left_out).mean() > 0.03


def test_left_out_errors_stand_in_the_order_of_the_samples(known):
    told = samples(known)
    odd = 17
    told[odd] = Sample(told[odd].workload, 3 * told[odd].latency_ms)
    assert int(np.abs(Additive(lanes=(LANES,)).fit(DEVICE, told).left_out).argmax()) == odd


# -- what it does not know


def test_kernels_never_timed_are_named_and_out_of_range():
    model = Additive().fit(DEVICE, samples(draw(60, 1, kernels=(3,), se=(False,), activations=("relu",))))
    known = draw(1, 5, kernels=(3,), se=(False,), activations=("relu",))[0]
    other = draw(1, 5, kernels=(5,), se=(True,), activations=("hard_swish",))[0]
    assert model.unseen(known) == ()
    unseen = model.unseen(other)
    assert {"depthwise.k5", "activation.hard_swish", "vector"} <= set(unseen)
    assert model.predict([known, other]).in_range.tolist() == [True, False]


def test_networks_far_outside_the_timed_latencies_are_out_of_range(known):
    ordered = sorted(samples(known), key=lambda sample: sample.latency_ms)
    middle = ordered[80:140]
    model = Additive().fit(DEVICE, middle)
    low, high = middle[0].latency_ms, middle[-1].latency_ms
    assert model.range_ms == (low, high)
    flags = model.predict([sample.workload for sample in ordered]).in_range
    means = model.predict([sample.workload for sample in ordered]).mean_ms
    seen = np.array([not model.unseen(sample.workload) for sample in ordered])
    assert np.array_equal(flags, seen & (means >= low / 2) & (means <= 2 * high))
    large = draw(1, 3, widths=((96,), (96,), (128,)), depths=(4,), expansions=(6,))[0]
    assert not model.predict([large]).in_range[0]


# -- refusals


def test_too_few_samples_are_refused_by_number(known):
    with pytest.raises(MeasurementError, match="device 'board' has 9 timed networks, the model needs 10: time more"):
        Additive().fit(DEVICE, samples(known[:9]))
    Additive().fit(DEVICE, samples(known[:10]))


def test_samples_of_several_origins_are_refused(known):
    mixed = [*samples(known[:10]), Sample(known[10], 1.0, "tabulated")]
    with pytest.raises(MeasurementError, match="device 'board' mixes measured and tabulated latencies in one fit"):
        Additive().fit(DEVICE, mixed)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")], ids=str)
def test_a_latency_that_is_none_is_refused(known, latency):
    with pytest.raises(MeasurementError, match="a latency that is no finite number above 0 ms"):
        Additive().fit(DEVICE, [*samples(known[:10]), Sample(known[10], latency)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": ()}, "lanes"),
        ({"lanes": (0, 8)}, "lanes"),
        ({"folds": 1}, "folds"),
        ({"min_samples": 1}, "min_samples"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Additive(**options)


# -- saved models


def test_a_saved_model_predicts_the_same(noisy, fresh):
    again = PREDICTORS["additive"](json.loads(json.dumps(noisy.to_dict(), allow_nan=False)))
    assert isinstance(again, AdditiveLatency)
    before, after = noisy.predict(fresh), again.predict(fresh)
    assert np.array_equal(before.mean_ms, after.mean_ms)
    assert np.array_equal(before.quantile_ms(0.9), after.quantile_ms(0.9))
    assert np.array_equal(before.in_range, after.in_range)


def test_a_saved_model_of_another_schema_is_refused(noisy):
    with pytest.raises(MeasurementError, match=rf"has schema {SCHEMA + 1}, expected {SCHEMA}: fit the device again"):
        AdditiveLatency.from_dict({**noisy.to_dict(), "schema": SCHEMA + 1})


def test_it_is_registered():
    assert LATENCY_MODELS.get("additive") is Additive
