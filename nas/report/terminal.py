"""The same decision in a terminal and in a log: one row a network, the one that ships first."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from nas.report import numbers
from nas.report.labels import budget_text, delivered, heading_of, in_order, is_search, label_of
from nas.results import Contender, RunResults
from search_spaces.measurement import Measurement

_METRICS = ("metric", "test_metric")
_STACKED = (("file_bytes", "peak_memory_bytes"), ("macs", "parameters"))
_STACKED_HEADS = ("File\nmemory", "MACs\nparams")
_LOGGED = (*_METRICS, "latency_ms", "file_bytes", "peak_memory_bytes", "macs", "parameters")


def summary_table(results: RunResults) -> Table:
    """Return the contenders as a rich table, the winner first; it fits 80 columns and cuts no figure off.

    Latency has one column for each way it is known, so that a predicted one never stands among measured ones.
    """
    title = Text(f"{results.task} on {results.device}: {budget_text(results)}")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Network", overflow="fold")
    table.add_column("Ships in\nbudget", no_wrap=True)
    for name in _METRICS:
        table.add_column(heading_of(name, results).replace(", ", "\n"), justify="right", no_wrap=True)
    origins = _origins(results)
    for origin in origins:
        table.add_column(f"{heading_of('latency_ms', results)}\n{origin}", justify="right", no_wrap=True)
    for head in _STACKED_HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for contender in in_order(results):
        wins = contender.name == results.winner
        table.add_row(*_cells(contender, origins, wins=wins), style="bold" if wins else "")
    return table


def summary_text(results: RunResults) -> str:
    """Return the outcome as plain lines for a log: verdict, what ships, budget, warnings."""
    winner = results.contender(results.winner)
    file = delivered(winner)
    lines = [f"run {results.name}: {results.verdict}"]
    if file:
        label = f" ({file.label})" if file.label else ""
        made = "found by search" if is_search(winner) else "made by hand"
        lines.append(f"ships: {file.file}, {file.precision}{label}, {winner.name}, {made}")
        known = [name for name in _LOGGED if name in file.figures]
        lines.extend(f"  {label_of(name, results)} {_described(file.figures[name])}" for name in known)
    lines.append(f"budget: {budget_text(results)}; {winner.budget_reason}")
    lines.extend(f"warning: {warning}" for warning in results.warnings)
    return "\n".join(lines)


def _origins(results: RunResults) -> list[str]:
    files = [file for contender in results.contenders if (file := delivered(contender))]
    return list(dict.fromkeys(file.figures["latency_ms"].origin for file in files if "latency_ms" in file.figures))


def _cells(contender: Contender, origins: list[str], *, wins: bool) -> Iterator[Text]:
    file = delivered(contender)
    named = [f"{contender.name} (ships)" if wins else contender.name]
    yield Text("\n".join([*named, file.label] if file and file.label else named))
    budget = ("met", "green") if contender.meets_budget else ("not met", "red")
    yield Text.assemble(file.precision if file else numbers.UNKNOWN, "\n", budget)
    figures = file.figures if file else {}
    for name in _METRICS:
        yield Text(_with_span(figures.get(name)))
    latency = figures.get("latency_ms")
    for origin in origins:
        yield Text(numbers.figure(latency) if latency and latency.origin == origin else numbers.UNKNOWN)
    for names in _STACKED:
        shown = (numbers.short(figures[name]) if name in figures else numbers.UNKNOWN for name in names)
        yield Text("\n".join(shown))


def _with_span(known: Measurement | None) -> str:
    """Return a figure and below it its interval."""
    if known is None:
        return numbers.UNKNOWN
    return f"{numbers.figure(known)}\n{numbers.span(known, between='-')}".rstrip()


def _described(known: Measurement) -> str:
    spread = numbers.interval(known)
    value = numbers.exact(known) if known.unit in ("MAC", "parameters") else numbers.figure(known)
    return f"{value}{f', {spread}' if spread else ''} ({known.origin})"
