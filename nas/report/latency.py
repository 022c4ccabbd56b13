"""The section on the latency model: what it predicted beside what became known."""

from collections.abc import Sequence

import numpy as np

from nas.report import numbers
from nas.report.elements import Child, Markup, element, joined, section, small, table
from nas.report.elements import tag as framed
from nas.report.figures import agreement, embedded
from nas.results import LatencyFit, RunResults


def latency(results: RunResults) -> Markup:
    """Return predicted against known latencies, for every precision."""
    if not results.fits:
        note = "This device times nothing, so there is no latency model and the search minimized MACs."
        return section("latency", "Predicted against measured", element("p", note, class_="note"))
    shown = any(fit.measured_ms or fit.delivered_measured_ms for fit in results.fits)
    return section(
        "latency",
        "Predicted against measured",
        _plot(results) if shown else None,
        _accuracy(results),
        _preferred(results),
        *(_delivered(fit) for fit in results.fits if fit.delivered_measured_ms),
    )


def _plot(results: RunResults) -> Markup:
    caption = (
        f"Every probe was predicted by a model fitted without it. Networks are held against the budget by the upper "
        f"{numbers.percent(results.level, 0)} bound of the prediction, not by its mean."
    )
    label = "Predicted over known latency of probes and delivered files, one panel a precision"
    return embedded(agreement(results.fits), "plot-agreement", label=label, caption=caption)


def _accuracy(results: RunResults) -> Markup:
    return table(
        "The latency model on networks left out of its fit",
        ["Precision", "Networks", "Within 5 %", "Within 10 %", "Mean absolute error", "Vector lanes"],
        [_fit_row(fit) for fit in results.fits],
        align="lrrrrr",
        kind="compact",
    )


def _fit_row(fit: LatencyFit) -> Sequence[Child]:
    return [
        joined([fit.precision, " ", framed(fit.origin)]),
        numbers.count(fit.networks),
        _of(fit.within_5, fit.networks),
        _of(fit.within_10, fit.networks),
        numbers.percent(fit.mape),
        numbers.count(fit.lanes),
    ]


def _preferred(results: RunResults) -> Markup | None:
    """Return how the models did on the networks that won by them, which are those that a search is misled by."""
    rows: list[Sequence[Child]] = []
    for fit in results.fits:
        if fit.preferred_measured_ms:
            off = np.array(fit.preferred_predicted_ms) / np.array(fit.preferred_measured_ms) - 1.0
            rows.append([
                fit.precision, numbers.count(len(off)), f"{_signed(float(off.mean()))} %",
                numbers.percent(float(np.abs(off).mean())), _of(float((np.abs(off) <= 0.1).mean()), len(off)),
            ])  # fmt: skip
    if not rows:
        return None
    return table(
        "The best networks of the search, timed before finalists were chosen",
        ["Precision", "Networks", "Mean error", "Mean absolute error", "Within 10 %"],
        rows,
        align="lrrrr",
        kind="compact",
    )


def _of(share: float, n: int) -> Markup:
    return joined([numbers.percent(share, 0), small(f"{round(share * n)} of {n}")])


def _delivered(fit: LatencyFit) -> Markup:
    pairs = list(zip(fit.delivered_predicted_ms, fit.delivered_measured_ms, strict=True))
    names = fit.delivered_files or [str(number) for number in range(1, len(pairs) + 1)]
    return table(
        f"Files the run wrote, {fit.precision}",
        ["File", "Predicted, ms", f"{fit.origin.capitalize()}, ms", "Prediction is off by"],
        [
            [name, numbers.significant(guess), numbers.significant(known), f"{_signed(guess / known - 1)} %"]
            for name, (guess, known) in zip(names, pairs, strict=True)
        ],
        align="lrrr",
        kind="compact",
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")
