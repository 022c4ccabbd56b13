"""How good predicted latencies are: shares within 5 and 10 %, mean error, rank correlation, interval coverage."""

from dataclasses import dataclass

import numpy as np
import scipy.stats

from latency_models.prediction import Array, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Figures of one set of predictions.

    Attributes:
        count: Networks compared.
        within_5: Share predicted within 5 % of the measurement.
        within_10: Share within 10 %.
        mape: Mean absolute relative error, as a share.
        bias: Mean signed relative error of the prediction, as a share.
        spearman: Rank correlation; NaN where all values are equal.
        kendall: Kendall's tau-b.
        coverage_90: Share inside the two-sided 90 % interval; NaN without intervals.
        width_90: Median width of that interval over the prediction; NaN without intervals.
    """

    count: int
    within_5: float
    within_10: float
    mape: float
    bias: float
    spearman: float
    kendall: float
    coverage_90: float = float("nan")
    width_90: float = float("nan")


def score(predicted_ms: Array, measured_ms: Array, prediction: Prediction | None = None) -> Score:
    """Compare predictions with measurements, both of shape `(n,)`, n at least 2.

    Args:
        predicted_ms: Best estimates.
        measured_ms: The truth.
        prediction: The same predictions with their intervals, where coverage is wanted.
    """
    if predicted_ms.shape != measured_ms.shape or len(measured_ms) < 2:
        raise ValueError(f"need two equal lengths of at least 2, got {predicted_ms.shape}, {measured_ms.shape}")
    error = predicted_ms / measured_ms - 1.0
    coverage = width = float("nan")
    if prediction is not None:
        low, high = prediction.quantile_ms(0.05), prediction.quantile_ms(0.95)
        coverage = float(((low <= measured_ms) & (measured_ms <= high)).mean())
        width = float(np.median((high - low) / prediction.mean_ms))
    return Score(
        count=len(measured_ms),
        within_5=float((np.abs(error) <= 0.05).mean()),
        within_10=float((np.abs(error) <= 0.10).mean()),
        mape=float(np.abs(error).mean()),
        bias=float(error.mean()),
        spearman=float(scipy.stats.spearmanr(predicted_ms, measured_ms).statistic),
        kendall=float(scipy.stats.kendalltau(predicted_ms, measured_ms).statistic),
        coverage_90=coverage,
        width_90=width,
    )
