"""Figures beside one another: several networks' under one head, and a figure beside the budget."""

from collections.abc import Sequence

from nas.report import numbers
from nas.report.elements import Markup, joined, small
from nas.report.elements import tag as framed
from search_spaces.measurement import Measurement


def figure_cells(label: str, known: Sequence[Measurement | None]) -> tuple[Markup, list[Markup]]:
    """Return the head of a row or column and its cells.

    Origin and level of the intervals stand at the head where all figures agree on them, and in the cells where they
    do not: a predicted figure never stands unlabelled among measured ones.

    Args:
        label: What the figure is called.
        known: The figure of each network, None where it is not known.
    """
    found = [it for it in known if it]
    origins = {it.origin for it in found}
    levels = {it.level for it in found if it.lower is not None}
    head = [
        label,
        joined([" ", framed(next(iter(origins)))]) if len(origins) == 1 else None,
        small(f"{numbers.percent(next(iter(levels)), 0)} interval") if len(levels) == 1 else None,
    ]
    return joined(head), [_cell(it, origin=len(origins) > 1, level=len(levels) > 1) for it in known]


def budget_use(known: Measurement, limit: float) -> tuple[float, str]:
    """Return the share of a limit that a figure uses, and its sentence.

    A figure that was not measured is held against the limit by the upper end of its interval, as the search holds it.
    """
    if known.upper is None or known.origin == "measured":
        used = known.value / limit
        return used, f"{numbers.percent(used, 0)} of the budget"
    used = known.upper / limit
    return used, f"upper end {numbers.percent(used, 0)} of the budget"


def _cell(known: Measurement | None, *, origin: bool, level: bool) -> Markup:
    if known is None:
        return Markup(numbers.UNKNOWN)
    spread = numbers.interval(known) if level else numbers.span(known)
    return joined(
        [
            numbers.short(known),
            small(spread) if spread else None,
            small(known.origin) if origin else None,
        ]
    )
