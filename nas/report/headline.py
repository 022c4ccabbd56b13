"""The top of the page: who ships, the run's verdict, what it was for, and what must be known first."""

from nas.report import numbers
from nas.report.elements import Child, Markup, bullets, element, file_link, joined, small
from nas.report.elements import tag as framed
from nas.report.labels import budget_text, delivered, heading_of, is_search
from nas.report.shared import budget_use
from nas.results import Contender, RunResults
from search_spaces.measurement import Measurement


def headline(results: RunResults) -> Markup:
    """Return the header of the page."""
    winner = results.contender(results.winner)
    found = is_search(winner)
    origin = framed("found by search", "good") if found else framed("made by hand; the search did not win", "caution")
    return element(
        "header",
        element("p", f"Run {results.name}", class_="eyebrow"),
        element("h1", winner.name, " ", origin),
        element("p", results.verdict, class_="verdict"),
        _warnings(results),
        _key_figures(results, winner),
        _facts(results, winner),
    )


def _warnings(results: RunResults) -> Markup | None:
    listed = bullets(results.warnings)
    if listed is None:
        return None
    return element("aside", element("h2", "Before trusting a figure"), listed, class_="warnings")


def _key_figures(results: RunResults, winner: Contender) -> Markup | None:
    file = delivered(winner)
    if file is None:
        return None
    metric = "test_metric" if "test_metric" in file.figures else "metric"
    names = [name for name in (metric, "latency_ms", "file_bytes", "peak_memory_bytes") if name in file.figures]
    return element("dl", *(_key_figure(name, file.figures[name], results) for name in names), class_="key")


def _key_figure(name: str, known: Measurement, results: RunResults) -> Markup:
    limit = results.budget.get(name)
    beside = numbers.interval(known) if limit is None else budget_use(known, limit)[1]
    return element(
        "div",
        element("dt", heading_of(name, results)),
        element("dd", numbers.figure(known), class_="value"),
        element("dd", framed(known.origin), small(" ", beside) if beside else None),
    )


def _facts(results: RunResults, winner: Contender) -> Markup:
    images = ", ".join(f"{numbers.count(n)} {split}" for split, n in results.images.items())
    timing = "delivered files were timed on it" if results.live else "it timed no delivered file"
    file = delivered(winner)
    facts: list[tuple[str, Child]] = [
        ("Ships", joined([file_link(file.file, file.file), f" ({file.precision})"]) if file else "nothing"),
        ("Task", f"{results.task}: {len(results.classes)} classes; images: {images}"),
        ("Device", f"{results.device}; {timing}"),
        ("Budget", budget_text(results)),
    ]
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in facts),
        class_="facts",
    )
