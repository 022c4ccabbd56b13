import numpy as np
import pytest

from latency_models.prediction import Prediction, residual_quantile


def prediction(means, residuals, spread=None):
    means = np.asarray(means, dtype=np.float64)
    spread = np.ones(len(means)) if spread is None else np.asarray(spread, dtype=np.float64)
    return Prediction(means, spread, np.sort(np.asarray(residuals, dtype=np.float64)), np.ones(len(means), np.bool_))


# -- the conformal quantile


def test_the_quantile_is_the_m_plus_first_times_level_smallest_residual():
    residuals = np.arange(1.0, 20.0)  # m = 19, so level 0.9 is the 18th smallest and 0.05 the first
    assert residual_quantile(residuals, 0.9) == pytest.approx(18.0)
    assert residual_quantile(residuals, 0.05) == pytest.approx(1.0)
    assert residual_quantile(residuals, 0.5) == pytest.approx(10.0)


def test_between_two_residuals_it_is_interpolated():
    assert residual_quantile(np.array([0.0, 1.0, 2.0]), 0.6) == pytest.approx(1.4)


def test_few_residuals_give_a_wider_bound_than_their_extremes_and_never_infinity():
    residuals = np.array([-0.02, 0.0, 0.04])
    assert residual_quantile(residuals, 0.99) == pytest.approx(0.04 + 0.96 * 0.04)
    assert residual_quantile(residuals, 0.01) == pytest.approx(-0.02 - 0.96 * 0.02)
    assert residual_quantile(np.array([0.03]), 0.99) == 0.03


def test_it_grows_with_the_level(rng):
    residuals = np.sort(rng.normal(size=37))
    found = [residual_quantile(residuals, level) for level in np.linspace(0.001, 0.999, 200)]
    assert found == sorted(found)


@pytest.mark.parametrize("count", [9, 19, 99])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_a_new_draw_stays_under_it_with_the_probability_asked_for(rng, count, level):
    # (m + 1) x level is whole here, where the rank argument is exact: 20,000 trials leave 0.0035 of noise.
    draws = rng.gamma(2.0, size=(20_000, count + 1))
    bounds = np.sort(draws[:, :count], axis=1)[:, round((count + 1) * level) - 1]
    assert [residual_quantile(np.sort(row[:count]), level) for row in draws[:5]] == pytest.approx(bounds[:5])
    held = np.mean([row[-1] <= residual_quantile(np.sort(row[:count]), level) for row in draws[:4000]])
    assert held == pytest.approx(level, abs=0.025)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        residual_quantile(np.array([0.0, 1.0]), level)


def test_without_residuals_there_is_no_quantile():
    with pytest.raises(ValueError, match="no residuals"):
        residual_quantile(np.array([]), 0.9)


# -- predictions


def test_a_quantile_scales_with_the_mean_and_the_spread():
    found = prediction([1.0, 2.0, 2.0], np.linspace(-0.09, 0.09, 19), spread=[1.0, 1.0, 2.0]).quantile_ms(0.9)
    assert found == pytest.approx([1.08, 2.16, 2.32])


def test_a_latency_is_never_below_zero():
    assert (prediction([1.0, 2.0], [-1.5, -1.2, 0.1]).quantile_ms(0.1) > 0.0).all()


def test_the_measurement_has_the_two_sided_interval_and_says_it_is_predicted():
    known = prediction([1.0, 4.0], np.linspace(-0.19, 0.19, 39)).measurement(1, level=0.9, source="board, int8")
    assert (known.value, known.unit, known.origin, known.level, known.source) == (
        4.0,
        "ms",
        "predicted",
        0.9,
        "board, int8",
    )
    assert (known.lower, known.upper) == pytest.approx((4 * 0.82, 4 * 1.18))


def test_the_interval_holds_the_mean_even_where_all_residuals_lie_on_one_side():
    known = prediction([1.0], [0.02, 0.03, 0.05, 0.06]).measurement(0)
    assert known.lower == known.value == 1.0
    assert known.upper > 1.05
