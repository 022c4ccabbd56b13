"""The plot of a search: every trained network, the front, the control, what was skipped, what was delivered."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.report import numbers
from nas.report.figures import HAND_MADE, LIMIT, NEUTRAL, SEARCH, axis, is_logarithmic, lay_out, safe
from nas.report.labels import delivered, is_search, metric_label
from nas.report.placement import label_places
from nas.results import Contender, RunResults, SearchedNetwork, SearchSummary

_LOWER_RUNGS = ("circle-open", "square-open", "diamond-open", "triangle-up-open")

_PLOT_WIDTH, _PLOT_HEIGHT = 980.0, 330.0
"""Pixels of the plot on a wide page, for the places of labels."""


def front(results: RunResults) -> go.Figure:
    """Return every trained network by its cost and metric, the front, the control, and what was delivered."""
    search = results.search
    strip = any(cost <= cost_range(results)[1] for cost, _ in search.skipped)
    rows = 2 if strip else 1
    figure = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.9, 0.1][:rows])
    if results.control:
        _add(figure, _cloud(results.control, "random search", "x-thin", NEUTRAL))
        _add(figure, _step(results.control, "front of the random search", NEUTRAL, "dot"))
    for rung in sorted({it.rung for it in trained(search)}):
        members = [it for it in trained(search) if it.rung == rung]
        figure.add_trace(_networks(members, rung_label(search, rung), _symbol(search, rung), SEARCH), 1, 1)
    _add(figure, _step(search, "front of the search", SEARCH, "solid"))
    for searched, title in ((True, "delivered, searched"), (False, "delivered, made by hand")):
        figure.add_traces(_delivered(results, searched=searched, title=title))
    if strip:
        figure.add_trace(_skipped(search), 2, 1)
    for trace in figure.data:
        trace.legendrank = _rank(trace.name)
    limit = results.budget.get(search.minimized)
    if limit:
        figure.add_vline(x=limit, line={"color": LIMIT, "width": 1.5, "dash": "dash"}, row=1, col=1)
        figure.add_annotation(
            x=_scaled(results, limit),
            y=1, yref="y domain", text="budget", showarrow=False, xanchor="left", xshift=4, yanchor="top",
            font={"color": LIMIT},
        )  # fmt: skip
    lay_out(figure, height=520 if strip else 480)
    _front_axes(figure, results, rows)
    return figure


def trained(search: SearchSummary) -> list[SearchedNetwork]:
    """Return the networks whose training did not fail."""
    return [it for it in search.networks if not it.failed]


def rung_label(search: SearchSummary, rung: int) -> str:
    """Return a rung as a reader counts it: "rung 2 of 3 (4 epochs)"."""
    rungs = max((it.rung for it in search.networks), default=rung) + 1
    epochs = search.rung_epochs
    if rung < len(epochs):
        unit = "epoch" if epochs[rung] == 1 else "epochs"
        return f"rung {rung + 1} of {len(epochs)} ({epochs[rung]} {unit})"
    return f"rung {rung + 1} of {rungs}"


def _rank(name: str) -> int:
    """Return where a trace stands in the legend: the search first, though it is drawn over its control."""
    order = ("front of the search", "rung", "delivered", "skipped", "random search", "front of the random")
    return next(at for at, start in enumerate(order) if name.startswith(start))


def _add(figure: go.Figure, trace: go.Scatter) -> None:
    figure.add_trace(trace, 1, 1)


def _symbol(search: SearchSummary, rung: int) -> str:
    last = max(it.rung for it in search.networks)
    return "circle" if rung == last else _LOWER_RUNGS[(last - 1 - rung) % len(_LOWER_RUNGS)]


def _cloud(search: SearchSummary, title: str, symbol: str, color: str) -> go.Scatter:
    trace = _networks(trained(search), title, symbol, color)
    trace.marker.line = {"width": 1.5, "color": color}
    return trace


def _networks(members: Sequence[SearchedNetwork], title: str, symbol: str, color: str) -> go.Scatter:
    return go.Scatter(
        name=title,
        x=[it.objective for it in members],
        y=[100 * it.metric.value for it in members],
        mode="markers",
        marker={"symbol": symbol, "size": 8, "color": color},
        text=[_hover(it) for it in members],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(network: SearchedNetwork) -> str:
    figures = [
        f"{safe(name.replace('_', ' '))}: {numbers.figure(it)}, {it.origin}" for name, it in network.figures.items()
    ]
    spread = numbers.interval(network.metric)
    metric = f"{numbers.figure(network.metric)} on validation{', ' if spread else ''}{spread}"
    return "<br>".join([f"{safe(network.key)}, {safe(network.precision)}", metric, *figures])


def _step(search: SearchSummary, title: str, color: str, dash: str) -> go.Scatter:
    """Return what the front offers at every cost: the metric of the best network that is no dearer."""
    members = sorted((it for it in trained(search) if it.on_front), key=lambda it: it.objective)
    x = [it.objective for it in members]
    y = [100 * it.metric.value for it in members]
    if members and search.reference_objective > x[-1]:
        x, y = [*x, search.reference_objective], [*y, y[-1]]
    return go.Scatter(
        name=title,
        x=x,
        y=y,
        mode="lines",
        line={"shape": "hv", "color": color, "width": 2, "dash": dash},
        hoverinfo="skip",
    )


def _delivered(results: RunResults, *, searched: bool, title: str) -> list[go.Scatter]:
    """Return the files that ship, one trace for each way their cost is known."""
    points: dict[str, list[tuple[Contender, float, float]]] = {}
    for contender in results.contenders:
        if is_search(contender) == searched and _is_shown(results, contender):
            origin = contender.files[0].figures[results.search.minimized].origin
            points.setdefault(origin, []).append((contender, *_at(results, contender)))
    places = _label_places(results)
    return [
        go.Scatter(
            name=f"{title} ({origin})",
            x=[cost for _, cost, _ in found],
            y=[metric for *_, metric in found],
            mode="markers+text",
            marker={
                "symbol": ["star" if it.name == results.winner else "diamond" for it, *_ in found],
                "size": [15 if it.name == results.winner else 11 for it, *_ in found],
                "color": SEARCH if searched else HAND_MADE,
                "opacity": 1.0,
            },
            text=[safe(it.name) for it, *_ in found],
            textposition=[places[it.name] for it, *_ in found],
            customdata=[_delivered_hover(results, it) for it, *_ in found],
            hovertemplate="%{customdata}<extra></extra>",
            cliponaxis=False,
        )
        for origin, found in points.items()
    ]


def _label_places(results: RunResults) -> dict[str, str]:
    """Return where the label of each delivered file stands."""
    shown = {it.name: _at(results, it) for it in results.contenders if _is_shown(results, it)}
    left, right = (_scaled(results, end) for end in cost_range(results))
    low, high = _metric_range(results)
    points = [
        (
            _PLOT_WIDTH * (_scaled(results, cost) - left) / (right - left),
            _PLOT_HEIGHT * (high - metric) / (high - low),
        )
        for cost, metric in shown.values()
    ]
    return dict(zip(shown, label_places(points, list(shown), width=_PLOT_WIDTH, height=_PLOT_HEIGHT), strict=True))


def _is_shown(results: RunResults, contender: Contender) -> bool:
    file = delivered(contender)
    return file is not None and {"metric", results.search.minimized} <= file.figures.keys()


def _at(results: RunResults, contender: Contender) -> tuple[float, float]:
    """Return the cost of the file that ships and its metric in percent."""
    figures = contender.files[0].figures
    return figures[results.search.minimized].value, 100 * figures["metric"].value


def _delivered_hover(results: RunResults, contender: Contender) -> str:
    file = contender.files[0]
    metric, cost = file.figures["metric"], file.figures[results.search.minimized]
    ships = ", ships" if contender.name == results.winner else ""
    return (
        f"{safe(contender.name)}, {file.precision}{ships}<br>{numbers.figure(metric)} on validation"
        f"<br>{numbers.figure(cost)}, {cost.origin}"
    )


def _skipped(search: SearchSummary) -> go.Scatter:
    return go.Scatter(
        name="skipped, never trained",
        x=[cost for cost, _ in search.skipped],
        y=[0.0] * len(search.skipped),
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 12, "color": LIMIT, "line": {"width": 1}, "opacity": 0.6},
        text=[safe("exceeds " + ", ".join(limits)) for _, limits in search.skipped],
        hovertemplate="%{x:.3g}: %{text}<extra></extra>",
    )


def _costs(results: RunResults) -> list[float]:
    """Return every cost that must be in view: trained and delivered networks and the budget."""
    costs = [it.objective for search in _searches(results) for it in trained(search)]
    costs += [_at(results, it)[0] for it in results.contenders if _is_shown(results, it)]
    limit = results.budget.get(results.search.minimized)
    return [*costs, limit] if limit else costs


def cost_range(results: RunResults) -> tuple[float, float]:
    """Return the least and the greatest cost in view, with room for labels on the right."""
    costs = _costs(results)
    if is_logarithmic(costs):
        room = (max(costs) / min(costs)) ** 0.08
        return min(costs) / room**0.5, max(costs) * room
    room = 0.08 * (max(costs) - min(costs) or max(costs))
    return min(costs) - room / 2, max(costs) + room


def _metric_range(results: RunResults) -> tuple[float, float]:
    """Return the least and the greatest metric in view, in percent, with room for labels."""
    metrics = [100 * it.metric.value for search in _searches(results) for it in trained(search)]
    metrics += [_at(results, it)[1] for it in results.contenders if _is_shown(results, it)]
    room = 0.08 * max(1.0, max(metrics) - min(metrics))
    return min(metrics) - room, max(metrics) + room


def _searches(results: RunResults) -> list[SearchSummary]:
    return [results.search, *([results.control] if results.control else [])]


def _scaled(results: RunResults, cost: float) -> float:
    """Return a cost as far along the axis as it is drawn."""
    return math.log10(cost) if is_logarithmic(_costs(results)) else cost


def _front_axes(figure: go.Figure, results: RunResults, rows: int) -> None:
    kind = "log" if is_logarithmic(_costs(results)) else "linear"
    figure.update_xaxes(type=kind, **axis(kind, cost_range(results)))
    figure.update_xaxes(title=cost_title(results), row=rows, col=1)
    metrics = list(_metric_range(results))
    figure.update_yaxes(title=f"{metric_label(results)} on validation, %", range=metrics, row=1, col=1)
    if rows == 2:
        nothing = {"showticklabels": False, "showgrid": False, "showline": False, "ticks": "", "range": [-1, 1]}
        figure.update_yaxes(title="", row=2, col=1, **nothing)


def cost_title(results: RunResults) -> str:
    """Return what the search minimized, with its unit and how the cost of trained networks is known."""
    if results.search.minimized == "macs":
        return "MACs (counted)"
    origins = {it.figures["latency_ms"].origin for it in results.search.networks if "latency_ms" in it.figures}
    return f"latency in ms (trained networks: {' and '.join(sorted(origins)) or 'predicted'})"
