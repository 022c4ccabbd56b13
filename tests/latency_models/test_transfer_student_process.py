import numpy as np
import pytest

from latency_models.transfer.forecast import PREDICTIVE_DEGREES, Forecast, spread_correction
from latency_models.transfer.student_process import LeftOut, fit_posterior, leave_one_out


@pytest.fixture
def problem(rng):
    inputs = rng.normal(size=(12, 3))
    return (inputs @ inputs.T)[None], inputs @ np.array([1.0, -2.0, 0.5]) + 0.3 * rng.normal(size=12)


def test_closed_form_leave_one_out_equals_refits_under_normal_noise(problem):
    covariance, target = problem
    noise, nu = np.array([0.3]), 1e6
    posterior = fit_posterior(covariance, noise, target, degrees_of_freedom=nu)
    left_out = leave_one_out(posterior, target, degrees_of_freedom=nu)
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        refit = fit_posterior(covariance[:, rest][:, :, rest], noise, target[rest], degrees_of_freedom=nu)
        assert left_out.residual[i] == pytest.approx(target[i] - covariance[0, i, rest] @ refit.dual[0], abs=1e-4)


def test_under_normal_noise_it_is_a_gaussian_process(problem):
    covariance, target = problem
    posterior = fit_posterior(covariance, np.array([0.3]), target, degrees_of_freedom=1e6)
    expected = np.linalg.solve(covariance[0] + 0.3 * np.eye(12), target)
    np.testing.assert_allclose(posterior.dual[0], expected, rtol=1e-3, atol=1e-4)


def test_an_outlier_loses_its_weight(problem):
    covariance, target = problem
    target = target.copy()
    target[5] += 30.0
    posterior = fit_posterior(covariance, np.array([0.1]), target, degrees_of_freedom=4.0)
    assert posterior.reliability[0].argmin() == 5
    assert posterior.reliability[0, 5] < 0.05 < 0.5 < np.median(posterior.reliability[0])


def test_the_evidence_finds_the_noise_that_made_the_data(rng):
    inputs = rng.normal(size=(80, 2))
    target = inputs @ np.array([1.0, -1.0]) + 0.1 * rng.standard_t(4, 80)
    noise = np.array([1e-6, 1e-4, 1e-2, 1.0])
    posterior = fit_posterior(np.repeat((inputs @ inputs.T)[None], 4, axis=0), noise, target, degrees_of_freedom=4.0)
    assert noise[posterior.setting[posterior.weight.argmax()]] == 1e-2
    assert posterior.weight.sum() == pytest.approx(1.0)


def test_only_the_best_settings_survive(problem):
    covariance, target = problem
    posterior = fit_posterior(
        np.repeat(covariance, 20, axis=0), np.geomspace(1e-3, 1.0, 20), target, degrees_of_freedom=4.0, survivors=3
    )
    assert len(posterior.setting) <= 3


def test_claimed_spreads_that_are_twice_too_small_are_doubled(rng):
    n = 4000
    residual = 2.0 * rng.standard_t(PREDICTIVE_DEGREES, n)
    left_out = LeftOut(residual=residual, latent_variance=np.full(n, 0.5), noise_variance=np.full(n, 0.5))
    assert spread_correction(left_out) == pytest.approx(2.0, rel=0.05)


def test_a_forecast_as_a_prediction_has_the_same_quantiles():
    forecast = Forecast(mean_ms=np.array([10.0, 2.0]), spread_ms=np.array([1.0, 0.1]))
    prediction = forecast.prediction(np.array([True, False]))
    for level in (0.01, 0.05, 0.5, 0.9, 0.99):
        np.testing.assert_allclose(prediction.quantile_ms(level), forecast.quantile_ms(level), rtol=1e-6)
    np.testing.assert_allclose(forecast.probability_below(10.0)[0], 0.5)
    assert prediction.in_range.tolist() == [True, False]
