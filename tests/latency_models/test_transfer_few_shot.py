import numpy as np
import pytest

from latency_models.transfer.budget_search import best_within_budget, best_without_timing
from latency_models.transfer.few_shot import Features, FewShotOptions, fit_device, forecast, take
from latency_models.transfer.operator_prior import operator_prior
from latency_models.transfer.operators import Lowering, Operator, tabulate
from latency_models.transfer.population import Population, operator_times, scales_of
from latency_models.transfer.source_models import SourceTable, fit_sources, source_shapes


def operators():
    """Thirty convolutions, depthwise and pointwise, of many shapes, and an addition."""
    made = [Operator(kind="add", input_elements=2e4, output_elements=1e4, out_channels=16)]
    for channels in (16, 24, 40, 64, 96):
        for side in (32, 16, 8):
            size = float(side**2 * channels)
            made.append(
                Operator(
                    kind="pointwise", macs=size * channels, input_elements=size, output_elements=size,
                    weight_elements=channels**2, out_channels=channels,
                )
            )  # fmt: skip
            made.append(
                Operator(
                    kind="depthwise", macs=25 * size, input_elements=size, output_elements=size,
                    weight_elements=25 * channels, kernel_size=5, out_channels=channels,
                )
            )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def lowering():
    made = operators()
    counts = np.random.default_rng(0).poisson(1.0, (400, len(made))).astype(np.float64)
    return Lowering(name="as_written", operators=tabulate(made), counts=counts)


def inputs(lowering, *, kept_variance=1.0 - 1e-7):
    prior = operator_prior(lowering, Population(num_devices=128), kept_variance=kept_variance)
    views = (prior.view(lowering.counts @ prior.rows(lowering.operators)),)
    return Features(views=views, context=np.zeros((len(lowering.counts), 1)), sources=np.empty((400, 0)))


@pytest.fixture(scope="module")
def features(lowering):
    return inputs(lowering)


def unseen_device(lowering, seed):
    """Latencies on an imaginary device that no prior of these tests was made from."""
    times = operator_times(lowering.operators, scales_of(lowering.operators), Population(num_devices=2, seed=seed))
    return lowering.counts @ times[:, 0]


@pytest.mark.parametrize("seed", range(100, 104))
def test_twenty_samples_rank_an_unseen_device(lowering, features, seed):
    latency = unseen_device(lowering, seed)
    predicted = forecast(fit_device(take(features, slice(0, 20)), latency[:20]), take(features, slice(20, None)))
    assert np.corrcoef(predicted.mean_ms, latency[20:])[0, 1] > 0.98


def test_predictions_scale_with_the_unit_of_time(lowering, features):
    latency = unseen_device(lowering, 7)
    one, thousand = (
        forecast(fit_device(take(features, slice(0, 20)), unit * latency[:20]), features) for unit in (1.0, 1000.0)
    )
    np.testing.assert_allclose(thousand.mean_ms, 1000.0 * one.mean_ms, rtol=1e-6)
    np.testing.assert_allclose(thousand.quantile_ms(0.95), 1000.0 * one.quantile_ms(0.95), rtol=1e-6)


def test_one_outlier_hardly_moves_the_ranking(lowering, features):
    latency = unseen_device(lowering, 11)
    spoiled = latency.copy()
    spoiled[3] *= 3.0
    clean, robust = (
        forecast(fit_device(take(features, slice(0, 20)), ms[:20]), features).mean_ms for ms in (latency, spoiled)
    )
    assert np.corrcoef(clean, robust)[0, 1] > 0.97


def test_keeping_every_direction_of_the_prior_gives_the_same_forecast(lowering, features):
    latency = unseen_device(lowering, 17)
    every = inputs(lowering, kept_variance=1.0)
    few, all_of_them = (forecast(fit_device(take(f, slice(0, 20)), latency[:20]), f).mean_ms for f in (features, every))
    np.testing.assert_allclose(few, all_of_them, rtol=2e-3)


def test_a_source_of_the_same_shape_is_reproduced_and_followed(lowering, features):
    latency = unseen_device(lowering, 13)
    table = SourceTable(name="twin", index=np.arange(300), latency_ms=latency[:300])
    shape = source_shapes(fit_sources(features.views, features.context, [table]), features.views, features.context)
    np.testing.assert_allclose(shape[:, 0], latency / latency.mean() - 1.0, atol=0.02)
    with_source = Features(views=features.views, context=features.context, sources=shape)
    errors = []
    for known in (features, with_source):
        found = forecast(fit_device(take(known, slice(0, 8)), latency[:8]), take(known, slice(8, None)))
        errors.append(np.abs(found.mean_ms / latency[8:] - 1.0).mean())
    assert errors[1] < 0.5 * errors[0]


def test_ninety_percent_intervals_cover_about_ninety_percent(lowering, features):
    rng = np.random.default_rng(0)
    inside = []
    for seed in range(200, 212):
        latency = unseen_device(lowering, seed) * np.exp(0.03 * rng.standard_t(4, 400))
        found = forecast(fit_device(take(features, slice(0, 20)), latency[:20]), take(features, slice(20, None)))
        low, high = found.quantile_ms(0.05), found.quantile_ms(0.95)
        inside.append(((low <= latency[20:]) & (latency[20:] <= high)).mean())
    assert 0.84 < np.mean(inside) < 0.96  # 12 fits: about 0.02 of sampling error


@pytest.mark.parametrize(
    ("latency", "message"),
    [([1.0] * 19, "for 20 networks"), ([1.0] * 19 + [0.0], "positive and finite")],
    ids=["too few", "zero"],
)
def test_bad_latencies_are_refused(features, latency, message):
    with pytest.raises(ValueError, match=message):
        fit_device(take(features, slice(0, 20)), np.asarray(latency))


def test_two_samples_are_refused(features):
    with pytest.raises(ValueError, match="at least 3"):
        fit_device(take(features, slice(0, 2)), np.ones(2))


def test_counts_must_match_the_operators():
    with pytest.raises(ValueError, match=r"expected \(n, 1\)"):
        Lowering(name="x", operators=tabulate([Operator(kind="conv")]), counts=np.zeros((3, 2)))


def test_search_returns_a_timed_network_within_the_budget_and_near_the_best(lowering, features):
    latency, score = unseen_device(lowering, 19), lowering.counts.sum(axis=1)
    budget = float(np.quantile(latency, 0.3))
    timed = []

    def measure(row):
        timed.append(row)
        return float(latency[row])

    options = FewShotOptions(noise_variance=(1e-5, 1e-3))
    found = best_within_budget(
        features, score, measure, first=np.arange(20), budget_ms=budget, extra=8, options=options, shortlist=50
    )
    assert found.best in timed
    assert latency[found.best] <= budget
    assert found.timed.tolist() == timed
    assert len(timed) <= 28
    assert len(set(timed)) == len(timed)
    assert score[found.best] >= score[latency <= budget].max() - 1.0
    untimed = best_without_timing(features, score, latency[:20], first=np.arange(20), budget_ms=budget, level=0.99)
    assert latency[untimed] <= 1.05 * budget


def test_search_says_when_nothing_timed_meets_the_budget(lowering, features):
    latency = unseen_device(lowering, 19)
    found = best_within_budget(
        features, np.arange(400.0), lambda row: float(latency[row]), first=np.arange(10), budget_ms=1e-9, extra=1
    )
    assert found.best is None
    assert len(found.timed) == 11
