"""The section on compression: what every stage did to every contender, and what its gate said."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.candidate import StageRecord
from nas.report import numbers
from nas.report.elements import Child, Markup, bullets, element, folded, joined, section, small, table
from nas.report.elements import tag as framed
from nas.report.labels import heading_of, in_order
from nas.results import Contender, RunResults
from search_spaces.measurement import Measurement

_ARROW = " \N{RIGHTWARDS ARROW} "
_MOST_OPTIONS = 160
_VERDICTS: Mapping[str, str] = {"kept": "good", "reverted": "caution", "failed": "bad", "not worth it": "caution"}

Figures = Mapping[str, Measurement]


def stages(results: RunResults) -> Markup:
    """Return the stage table of every contender, the winner's open."""
    winner, *others = in_order(results)
    return section(
        "stages",
        "Compression stages",
        element("h3", winner.name),
        _contender(results, winner),
        *(folded(f"Stages of {it.name}", _contender(results, it)) for it in others),
    )


def _contender(results: RunResults, contender: Contender) -> Markup:
    return joined(
        [
            _starts(results, contender) if contender.starts else None,
            _table(results, contender) if contender.stages else element("p", "No stage was run on it."),
            bullets(contender.notes),
            _architecture(contender),
        ]
    )


def _starts(results: RunResults, contender: Contender) -> Markup:
    names = {"pretrained": "from the weights given", "from_scratch": "from random weights", "gain": "difference"}
    return table(
        "The same training from the weights given and from scratch, before any stage",
        ["Start", heading_of("metric", results), "Interval"],
        [
            [said, joined([numbers.figure(known), small(known.origin)]), numbers.interval(known)]
            for name, said in names.items()
            if (known := contender.starts.get(name)) is not None
        ],
        align="lrr",
        kind="compact",
    )


def _table(results: RunResults, contender: Contender) -> Markup:
    head: list[Child] = ["Stage", heading_of("metric", results), "Latency", "Size", "Verdict", "Why"]
    return table(
        "Before and after each stage, in the order they ran",
        head,
        [_row(results, record) for record in contender.stages],
        align="l" * len(head),
        kind="stages",
    )


def _row(results: RunResults, record: StageRecord) -> Sequence[Child]:
    return [
        joined([record.stage, small(_options(record.options)), small(numbers.duration(record.seconds))]),
        _before_after(record, ("metric", results.metric)),
        _before_after(record, ("latency_ms",)),
        _before_after(record, ("file_bytes", "weight_bytes")),
        framed(record.verdict, _VERDICTS[record.verdict]),
        joined([record.reason, bullets(record.notes), _also(record.figures)]),
    ]


def _before_after(record: StageRecord, names: Sequence[str]) -> Child:
    """Return a figure before and after, of the first name that both sides know."""
    for name in names:
        before, after = record.before.get(name), record.after.get(name)
        if before and after:
            values = numbers.figure(before) + _ARROW + numbers.figure(after)
            return joined([values, small(numbers.change(before, after), " ", _origins(name, before, after))])
    return numbers.UNKNOWN


def _origins(name: str, before: Measurement, after: Measurement) -> str:
    what = "of the weights, " if name == "weight_bytes" else ""
    origin = before.origin if before.origin == after.origin else before.origin + _ARROW + after.origin
    return f"({what}{origin})"


def _also(figures: Figures) -> Markup | None:
    sentences = [f"{name.replace('_', ' ')}: {numbers.figure(it)} ({it.origin})" for name, it in figures.items()]
    return small("Also: " + "; ".join(sentences)) if sentences else None


def _options(options: Mapping[str, Any]) -> str:  # Any: JSON values
    text = ", ".join(f"{name} = {_short(value)}" for name, value in options.items())
    return text if len(text) <= _MOST_OPTIONS else text[:_MOST_OPTIONS] + "\N{HORIZONTAL ELLIPSIS}"


def _short(value: Any) -> str:  # Any: JSON values
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _architecture(contender: Contender) -> Markup | None:
    if not contender.architecture:
        return None
    pruned = contender.final_key and contender.final_key != contender.key
    keys = f"{contender.key}, delivered as {contender.final_key}" if pruned else contender.key
    return folded(f"Architecture {keys}", element("pre", contender.architecture))
