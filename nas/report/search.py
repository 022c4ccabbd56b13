"""The section on the search: its front, how it compares with chance, and what it never trained."""

from collections import Counter
from collections.abc import Iterator, Sequence

from nas.report import numbers
from nas.report.elements import Child, Markup, element, folded, joined, section, small, table
from nas.report.figures import embedded
from nas.report.front import cost_range, front, rung_label, trained
from nas.report.labels import UNITS, heading_of, label_of, limit_text, metric_label
from nas.report.shared import figure_cells
from nas.results import RunResults, SearchedNetwork, SearchSummary

_COSTS = ("latency_ms", "upper_ms", "macs", "parameters")
_READ_DIGITS = 9
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def search(results: RunResults) -> Markup:
    """Return the plot of all trained networks and the tables that say the same."""
    return section(
        "search",
        "Search",
        _plot(results) if trained(results.search) else None,
        _summary(results),
        _front_table(results),
        _skipped_table(results),
        _failures(results.search),
        folded(f"All {len(results.search.networks)} trained networks", _all_table(results)),
    )


def _plot(results: RunResults) -> Markup:
    minimized = label_of(results.search.minimized, results)
    caption = (
        "Filled circles were trained longest, open marks on lower rungs. Delivered files were trained to the end and "
        "compressed, so their height is not the search's doing alone."
    )
    if results.search.skipped:
        out = sum(cost > cost_range(results)[1] for cost, _ in results.search.skipped)
        caption += (
            f" Of {numbers.count(len(results.search.skipped))} proposals that the budget excluded before any training, "
            f"{numbers.count(out)} lie right of the view; the others stand in the strip at the bottom."
        )
    label = f"Scatter of {metric_label(results)} on validation over {minimized} of every trained network"
    return embedded(front(results), "plot-front", label=label, caption=caption)


def _summary(results: RunResults) -> Markup:
    searches = [results.search, *([results.control] if results.control else [])]
    heads = [
        f"Search ({results.search.sampler})",
        *([f"Control ({results.control.sampler})"] if results.control else []),
    ]
    rows: list[Sequence[Child]] = [
        ["Networks trained", *(numbers.count(len(it.networks)) for it in searches)],
        ["Proposals skipped, over the budget", *(numbers.count(len(it.skipped)) for it in searches)],
        ["Proposals answered from the log", *(numbers.count(it.duplicates) for it in searches)],
        ["Share of random networks that fit", *(numbers.percent(it.feasible_share) for it in searches)],
        ["Size of the space, choice vectors", *(_size(it.space_size) for it in searches)],
        [_hypervolume_head(results), *_hypervolumes(results)],
        ["Trained as many as asked for", *("yes" if it.complete else "no" for it in searches)],
        ["Wall time", *(numbers.duration(it.seconds) for it in searches)],
    ]
    caption = "The search beside a random search of equal number" if results.control else "The search"
    return table(caption, ["", *heads], rows, align="l" + "r" * len(searches), kind="compact")


def _size(vectors: str) -> str:
    """Return the number of choice vectors, rounded where nobody would read all digits."""
    if not vectors.isdigit() or len(vectors) <= _READ_DIGITS:
        return numbers.count(int(vectors)) if vectors.isdigit() else vectors
    power = str(len(vectors) - 1).translate(_RAISED)
    return f"{vectors[0]}.{vectors[1:3]} \N{MULTIPLICATION SIGN} 10{power}"


def _hypervolume_head(results: RunResults) -> Markup:
    search = results.search
    floor = f"{metric_label(results)} above {numbers.percent(search.reference_metric)}"
    ceiling = f"{label_of(search.minimized, results)} below {limit_text(search.minimized, search.reference_objective)}"
    return joined(["Hypervolume of the front", small(f"{floor}, {ceiling}")])


def _hypervolumes(results: RunResults) -> Iterator[Child]:
    unit = f"share \N{MULTIPLICATION SIGN} {UNITS[results.search.minimized]}"
    yield f"{numbers.significant(results.search.hypervolume, 4)} {unit}"
    if results.control is None:
        return
    ours, chance = results.search.hypervolume, results.control.hypervolume
    ratio = small(f"the search has {ours / chance:.3f} times as much") if chance > 0 else None
    yield joined([f"{numbers.significant(chance, 4)} {unit}", ratio])


def _front_table(results: RunResults) -> Markup:
    members = sorted((it for it in trained(results.search) if it.on_front), key=lambda it: it.objective)
    return _networks_table(results, f"The front: {len(members)} networks, cheapest first", members)


def _all_table(results: RunResults) -> Markup:
    return _networks_table(results, "Every trained network, in the order of proposal", results.search.networks)


def _networks_table(results: RunResults, caption: str, members: Sequence[SearchedNetwork]) -> Markup:
    known = [("metric", [None if it.failed else it.metric for it in members])]
    known += [(name, [it.figures.get(name) for it in members]) for name in _COSTS]
    figures = [figure_cells(heading_of(name, results), column) for name, column in known if any(column)]
    columns = [cells for _, cells in figures]
    among_others = not all(it.on_front for it in members)
    rows = [
        [_named(it, among_others=among_others), *cells, *_training(results, it)]
        for it, *cells in zip(members, *columns, strict=True)
    ]
    return table(
        caption,
        ["Network", *(head for head, _ in figures), "Ships in", "Trained to"],
        rows,
        align="l" + "r" * len(figures) + "ll",
        kind="compact",
    )


def _named(network: SearchedNetwork, *, among_others: bool) -> Markup:
    return joined(
        [
            element("code", network.key),
            small("on the front") if network.on_front and among_others else None,
            small("training failed") if network.failed else None,
        ]
    )


def _training(results: RunResults, network: SearchedNetwork) -> Sequence[Child]:
    return [network.precision, rung_label(results.search, network.rung)]


def _skipped_table(results: RunResults) -> Markup | None:
    skipped = results.search.skipped
    if not skipped:
        return None
    counted = Counter(limit for _, limits in skipped for limit in dict.fromkeys(limits))
    return table(
        f"Limits exceeded by skipped proposals, {numbers.count(len(skipped))} in all; none was trained",
        ["Limit", "Proposals", "Share"],
        [
            [heading_of(limit, results), numbers.count(n), numbers.percent(n / len(skipped), 0)]
            for limit, n in counted.most_common()
        ],
        align="lrr",
        kind="compact",
    )


def _failures(search: SearchSummary) -> Markup | None:
    failed = [it for it in search.networks if it.failed]
    if not failed:
        return None
    items = [element("li", element("code", it.key), ": ", it.failed) for it in failed]
    return joined([element("p", f"Training failed for {len(failed)} networks:"), element("ul", *items)])
