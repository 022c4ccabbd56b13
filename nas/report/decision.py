"""What a person decides by: the winner beside what a person would have built, the budget, and every file."""

from collections.abc import Iterator, Sequence

from nas.report import numbers
from nas.report.elements import Child, Markup, bar, bullets, element, file_link, joined, section, small, table
from nas.report.elements import tag as framed
from nas.report.labels import delivered, heading_of, in_order, is_search, limit_text
from nas.report.shared import budget_use, figure_cells
from nas.results import Contender, DeliveredFile, RunResults
from search_spaces.measurement import Measurement

_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_COUNTED = ("macs", "parameters")
_COMPARED = (
    "metric",
    "test_metric",
    "latency_ms",
    *_PERCENTILES,
    "sustained_ms",
    "predicted_ms",
    "file_bytes",
    "weight_bytes",
    "peak_memory_bytes",
    *_COUNTED,
)


def decision(results: RunResults) -> Markup:
    """Return the winner beside the hand-made networks, and every delivered file."""
    contenders = in_order(results)
    absent = bullets(f"{family}: {reason}" for family, reason in results.absent_baselines.items())
    return section(
        "decision",
        "Decision",
        _offer(results),
        _comparison(results, contenders),
        element("p", "Not in the table:") if absent else None,
        absent,
        _budget(results, contenders[0]),
        _files(results, contenders),
    )


def _offer(results: RunResults) -> Markup | None:
    winner = results.contender(results.winner)
    file = delivered(winner)
    if is_search(winner) or file is None:
        return None
    return element(
        "p",
        "The search did not win. The file of a network made by hand is offered instead: ",
        file_link(file.file, f"{winner.name}, {file.file}"),
        ".",
        class_="note",
    )


def _comparison(results: RunResults, contenders: Sequence[Contender]) -> Markup:
    head: list[Child] = ["Of the file each ships", *(_column_head(results, it) for it in contenders)]
    caption = "The network that ships beside the others, put through the same data, training, stages and device"
    return table(caption, head, _comparison_rows(results, contenders), align="l" * len(head), kind="spec")


def _column_head(results: RunResults, contender: Contender) -> Markup:
    kind = "found by search" if is_search(contender) else f"made by hand, {contender.family}"
    ships = framed("ships", "good") if contender.name == results.winner else None
    return joined([contender.name, " ", ships, small(kind)])


def _comparison_rows(results: RunResults, contenders: Sequence[Contender]) -> Iterator[Sequence[Child]]:
    yield ["Meets the budget", *(_meets(it) for it in contenders)]
    for name in _COMPARED:
        yield from _by_origin(results, contenders, name)
    yield ["Precision", *(_precision(it) for it in contenders)]
    yield ["Stages", *(_stages(it) for it in contenders)]
    yield [joined(["Training and stages", small("wall time")]), *(numbers.duration(it.seconds) for it in contenders)]
    yield ["File", *(_file(it) for it in contenders)]


def _by_origin(results: RunResults, contenders: Sequence[Contender], name: str) -> Iterator[Sequence[Child]]:
    """Give a row for every way the figure is known: measured and predicted never share one."""
    known = [file.figures.get(name) if (file := delivered(it)) else None for it in contenders]
    for origin in dict.fromkeys(it.origin for it in known if it):
        of_origin = [it if it and it.origin == origin else None for it in known]
        head, cells = figure_cells(heading_of(name, results), of_origin)
        beside = small("batch 1") if name in _PERCENTILES else None
        rows = zip(cells, of_origin, contenders, strict=True)
        yield [joined([head, beside]), *(joined([cell, _beside(results, name, it, by)]) for cell, it, by in rows)]


def _beside(results: RunResults, name: str, known: Measurement | None, contender: Contender) -> Markup | None:
    """Return what a figure is held against: the budget's limit, fvcore's count, or what a long run went through."""
    if known is None:
        return None
    if name in _COUNTED:
        return _independent(known, contender.counted_by_fvcore.get(name))
    if name == "sustained_ms":
        return small(known.source)
    limit = results.budget.get(name)
    return small(budget_use(known, limit)[1]) if limit else None


def _independent(known: Measurement, independent: Measurement | None) -> Markup:
    if independent is None:
        return joined([small(numbers.exact(known)), small("no independent count")])
    apart = round(known.value) - round(independent.value)
    if not apart:
        return joined([small(numbers.exact(known)), small("fvcore: the same")])
    text = f"fvcore: {numbers.exact(independent)}, {numbers.difference(apart)} here"
    return joined([small(numbers.exact(known)), small(text, kind="differs")])


def _meets(contender: Contender) -> Markup:
    answer = framed("yes", "good") if contender.meets_budget else framed("no", "bad")
    return joined([answer, small(contender.budget_reason)])


def _precision(contender: Contender) -> Markup:
    file = delivered(contender)
    if file is None:
        return Markup(numbers.UNKNOWN)
    spare = [other for other in contender.files[1:] if other.label]
    labels = [file.label, *(f"{other.precision} file: {other.label}" for other in spare)]
    return joined([file.precision, *(small(text, kind="differs") for text in labels if text)])


def _stages(contender: Contender) -> Markup:
    done = [joined([record.stage, " ", element("span", record.verdict, class_="quiet")]) for record in contender.stages]
    return joined([element("span", stage, class_="line") for stage in done], " ") if done else Markup("none")


def _file(contender: Contender) -> Child:
    file = delivered(contender)
    return file_link(file.file, file.file.rsplit("/", 1)[-1]) if file else "nothing delivered"


def _budget(results: RunResults, winner: Contender) -> Markup | None:
    file = delivered(winner)
    if not results.budget or file is None:
        return None
    rows = [_budget_row(results, name, limit, file.figures.get(name)) for name, limit in results.budget.items()]
    return table(
        f"The budget and what {winner.name} uses of it",
        ["Limit", "At most", "Delivered", "Used", ""],
        rows,
        align="lrrrl",
        kind="compact",
    )


def _budget_row(results: RunResults, name: str, limit: float, known: Measurement | None) -> Sequence[Child]:
    label, most = heading_of(name, results), limit_text(name, limit)
    if known is None:
        return [label, most, numbers.UNKNOWN, numbers.UNKNOWN, None]
    used, _ = budget_use(known, limit)
    return [
        joined([label, " ", framed(known.origin)]),
        most,
        numbers.short(known),
        numbers.percent(used, 0),
        bar(used, "bad" if used > 1 else ""),
    ]


def _files(results: RunResults, contenders: Sequence[Contender]) -> Markup | None:
    made = [(it, file) for it in contenders for file in it.files]
    if not made:
        return None
    known = [(name, [file.figures.get(name) for _, file in made]) for name in ("metric", "latency_ms", "file_bytes")]
    figures = [figure_cells(heading_of(name, results), column) for name, column in known if any(column)]
    columns = [cells for _, cells in figures]
    rows = [
        [it.name, _linked(results, it, file), *cells, *_parity(file)]
        for (it, file), *cells in zip(made, *columns, strict=True)
    ]
    return table(
        "Every delivered file, compared with the network it was made from on validation images",
        ["Network", "File", *(head for head, _ in figures), "Same top-1", "Largest difference", "Parity"],
        rows,
        align="ll" + "r" * len(figures) + "rrl",
        kind="compact",
    )


def _linked(results: RunResults, contender: Contender, file: DeliveredFile) -> Markup:
    ships = contender.name == results.winner and file is contender.files[0]
    name = file.file.rsplit("/", 1)[-1]
    return joined(
        [
            file_link(file.file, name),
            joined([" ", framed("ships", "good")]) if ships else None,
            small(file.precision),
            small(file.label, kind="differs") if file.label else None,
        ]
    )


def _parity(file: DeliveredFile) -> Sequence[Child]:
    """Return the agreement in top-1, the largest difference of a logit, and whether the file may ship."""
    parity = file.parity
    apart = parity.max_abs_difference / parity.max_abs_logit if parity.max_abs_logit else parity.max_abs_difference
    answer = framed("passed", "good") if parity.passed else framed("failed", "bad")
    why = small(parity.reason) if not parity.passed else None
    in_float = file.float_operators if file.precision == "int8" else 0
    left = f"{in_float} operators left in float" if in_float else ""
    return [
        joined([numbers.percent(parity.agreement, 2), small(f"{numbers.count(parity.images)} images")]),
        joined([f"{apart:.1e}", small("of the largest logit")]),
        joined([answer, why, small(left, kind="differs") if left else None]),
    ]
