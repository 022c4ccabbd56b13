"""The plots: plotly figures without colors of their own for text and grid, which the page's style gives them.

Each shows what a table of the same section tells, so a page without script loses nothing but the picture. Text of
users is escaped, since plotly reads a few HTML elements in labels.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.report.elements import Markup, element
from nas.results import LatencyFit

SEARCH = "#2f81d6"
HAND_MADE = "#d9722b"
NEUTRAL = "#8b949e"
LIMIT = "#d1434b"
DELIVERED = "#1a9a76"

_LOG_FROM = 6.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

_PREFIXES_FROM = 10_000.0
"""Values from which an axis writes 20k for 20,000."""

_MOST_LABELS = 120
_LARGE_CELLS = 40
_PIXELS_PER_CLASS = 11

Axis = dict[str, Any]  # Any: plotly's attributes


def embedded(figure: go.Figure, name: str, *, label: str, caption: str) -> Markup:
    """Return a figure as data that the page's script draws, with its caption.

    Args:
        figure: What to draw; `layout.height` is its height in pixels.
        name: Unique in the page.
        label: What it shows, for those who do not see it.
        caption: Shown below it.
    """
    data = figure.to_json()  # plotly escapes what could end the script
    height = int(figure.layout.height)
    return element(
        "figure",
        element("div", class_="plot", id=name, role="img", aria_label=label, style=f"height:{height}px"),
        Markup(f'<script type="application/json" data-plot="{name}">{data}</script>'),
        element("noscript", element("p", "The plot needs JavaScript; the tables hold the same figures.")),
        element("figcaption", caption),
    )


def agreement(fits: Sequence[LatencyFit]) -> go.Figure:
    """Return predicted against known latency, one panel a precision, with the band of 10 %."""
    panels = [fit for fit in fits if fit.measured_ms or fit.delivered_measured_ms]
    figure = make_subplots(1, len(panels), horizontal_spacing=0.1)
    explained: set[str] = set()
    for column, fit in enumerate(panels, start=1):
        known = (*fit.measured_ms, *fit.delivered_measured_ms)
        ends = [0.9 * min(known), 1.1 * max(known)]
        for trace in _agreement_traces(fit, ends):
            trace.update(legendgroup=trace.name, showlegend=trace.name not in explained)
            explained.add(trace.name)
            figure.add_trace(trace, 1, column)
        kind = "log" if is_logarithmic(known) else "linear"
        title = f"{fit.origin} latency, {fit.precision}, ms"
        figure.update_xaxes(title=title, type=kind, row=1, col=column, **axis(kind, ends))
        figure.update_yaxes(title="predicted latency, ms", type=kind, row=1, col=column, **axis(kind, ends))
    lay_out(figure, height=430)
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> go.Figure:
    """Return a heat map of images by true and predicted class: found ones in one color, mistaken ones in another."""
    shares = [[cell / max(1, sum(row)) for cell in row] for row in matrix]
    names = [safe(name) for name in classes]
    gap = 1 if len(classes) <= _LARGE_CELLS else 0
    figure = go.Figure()
    for title, color, diagonal in (("found", SEARCH, True), ("mistaken", HAND_MADE, False)):
        figure.add_trace(
            go.Heatmap(
                name=title,
                x=names,
                y=names,
                z=[
                    [share if (i == j) == diagonal else None for j, share in enumerate(row)]
                    for i, row in enumerate(shares)
                ],
                customdata=[list(row) for row in matrix],
                hovertemplate="true: %{y}<br>predicted: %{x}<br>%{customdata} images, %{z:.1%}<extra></extra>",
                hoverongaps=False,
                colorscale=[[0, _transparent(color, 0.0)], [1, _transparent(color, 1.0)]],
                zmin=0,
                showscale=False,
                xgap=gap,
                ygap=gap,
            )
        )
    shown = len(classes) <= _MOST_LABELS
    labels: Axis = {
        "type": "category",
        "tickvals": names if shown else [],
        "ticktext": [_short(name) for name in classes] if shown else [],
        "tickfont": {"size": 11 if gap else 9},
        "showgrid": False,
        "automargin": True,
    }
    lay_out(figure, height=min(1300, max(420, 150 + _PIXELS_PER_CLASS * len(classes))))
    figure.update_xaxes(title="predicted class", side="bottom", tickangle=-90, **labels)
    figure.update_yaxes(title="true class", autorange="reversed", **labels)
    return figure


def _agreement_traces(fit: LatencyFit, ends: Sequence[float]) -> Iterable[go.Scatter]:
    low, high = ends
    yield go.Scatter(
        name="within 10 %",
        x=[low, high, high, low],
        y=[0.9 * low, 0.9 * high, 1.1 * high, 1.1 * low],
        fill="toself",
        fillcolor=_transparent(NEUTRAL, 0.18),
        mode="none",
        hoverinfo="skip",
    )
    yield go.Scatter(
        name="equal",
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": NEUTRAL, "width": 1},
        hoverinfo="skip",
    )
    yield _pairs("probes left out of the fit", fit.measured_ms, fit.predicted_ms, "circle-open", SEARCH)
    if fit.delivered_measured_ms:
        pairs = (fit.delivered_measured_ms, fit.delivered_predicted_ms)
        yield _pairs("delivered files", *pairs, "diamond", DELIVERED)


def _pairs(title: str, known_ms: Sequence[float], predicted_ms: Sequence[float], symbol: str, color: str) -> go.Scatter:
    errors = [f"{100 * (guess / known - 1):+.1f} %" for known, guess in zip(known_ms, predicted_ms, strict=True)]
    return go.Scatter(
        name=title,
        x=list(known_ms),
        y=list(predicted_ms),
        mode="markers",
        marker={"symbol": symbol, "size": 8 if symbol == "circle-open" else 10, "color": color},
        text=errors,
        hovertemplate="known %{x:.4g} ms, predicted %{y:.4g} ms: %{text}<extra></extra>",
    )


def is_logarithmic(values: Iterable[float]) -> bool:
    """Tell whether values spread so far that their axis should be logarithmic."""
    known = [value for value in values if value > 0]
    return bool(known) and max(known) / min(known) > _LOG_FROM


def axis(kind: str, ends: Sequence[float]) -> Axis:
    """Return the range of an axis; a logarithmic one takes exponents, and ticks at 1, 2 and 5."""
    form = ".3~s" if max(ends) >= _PREFIXES_FROM else ".3~g"
    if kind == "log":
        return {"range": [math.log10(end) for end in ends], "dtick": "D2", "tickformat": form}
    return {"range": list(ends), "tickformat": form}


def lay_out(figure: go.Figure, *, height: int) -> None:
    """Give a figure its height in pixels, its margins and its legend; the page's style colors text and grid."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 24, "t": 36, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": NEUTRAL},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": SEARCH},
        hovermode="closest",
    )
    grid = _transparent(NEUTRAL, 0.25)
    figure.update_xaxes(gridcolor=grid, zeroline=False, linecolor=NEUTRAL, showline=True, ticks="outside")
    figure.update_yaxes(gridcolor=grid, zeroline=False, linecolor=NEUTRAL, showline=True, ticks="outside")


def _short(name: str, most: int = 18) -> str:
    return safe(name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}")


def safe(text: str) -> str:
    """Return text that plotly shows as it is."""
    return html.escape(text, quote=False)


def _transparent(color: str, opacity: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
