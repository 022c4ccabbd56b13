import math

import numpy as np
import pytest

from latency_models.prediction import Prediction
from latency_models.score import score


def test_shares_and_errors_counted_by_hand():
    measured = np.array([1.0, 1.0, 2.0, 4.0])
    predicted = np.array([1.04, 0.93, 2.0, 5.0])  # off by +4, -7, 0 and +25 %
    found = score(predicted, measured)
    assert (found.count, found.within_5, found.within_10) == (4, 0.5, 0.75)
    assert found.mape == pytest.approx((0.04 + 0.07 + 0.25) / 4)
    assert found.bias == pytest.approx((0.04 - 0.07 + 0.25) / 4)
    assert math.isnan(found.coverage_90)
    assert math.isnan(found.width_90)


def test_perfect_predictions():
    measured = np.array([0.5, 1.0, 3.0])
    found = score(measured, measured)
    assert (found.within_5, found.within_10, found.mape, found.bias) == (1.0, 1.0, 0.0, 0.0)
    assert (found.spearman, found.kendall) == pytest.approx((1.0, 1.0))


def test_ranks_do_not_care_about_scale_and_see_a_swap():
    measured = np.array([1.0, 2.0, 3.0, 4.0])
    scaled = score(100 * measured**3, measured)
    assert (scaled.spearman, scaled.kendall) == pytest.approx((1.0, 1.0))
    assert (scaled.within_10, scaled.bias > 10) == (0.0, True)
    swapped = score(np.array([2.0, 1.0, 3.0, 4.0]), measured)
    assert swapped.kendall == pytest.approx(4 / 6)  # one of six pairs is turned round
    assert swapped.spearman == pytest.approx(0.8)
    assert score(measured[::-1].copy(), measured).kendall == pytest.approx(-1.0)


def test_coverage_and_width_of_the_90_percent_interval():
    residuals = np.linspace(-0.19, 0.19, 39)  # 5th to 95th percentile: -18 % to +18 %
    means = np.array([1.0, 2.0, 4.0, 8.0])
    known = Prediction(means, np.ones(4), residuals, np.ones(4, np.bool_))
    found = score(means, means * np.array([1.0, 1.17, 1.19, 0.81]), known)
    assert found.coverage_90 == 0.5
    assert found.width_90 == pytest.approx(0.36)


@pytest.mark.parametrize(
    ("predicted", "measured"), [(np.ones(2), np.ones(3)), (np.ones(1), np.ones(1)), (np.ones(0), np.ones(0))], ids=len
)
def test_lengths_must_fit(predicted, measured):
    with pytest.raises(ValueError, match="two equal lengths of at least 2"):
        score(predicted, measured)
