"""The last section: every figure of every delivered file, to the last digit, with its unit, origin and source."""

from collections.abc import Iterator, Sequence

from nas.report import numbers
from nas.report.elements import Child, Markup, folded, section, table
from nas.report.labels import heading_of, in_order
from nas.results import Contender, DeliveredFile, RunResults
from search_spaces.measurement import Measurement


def appendix(results: RunResults) -> Markup:
    """Return one folded table a file."""
    tables = [_file(results, it, file) for it in in_order(results) for file in it.files]
    return section("figures", "Every figure", *tables)


def _file(results: RunResults, contender: Contender, file: DeliveredFile) -> Markup:
    content = table(
        f"Figures of {file.file}",
        ["Figure", "Value", "Lower", "Upper", "Level", "Unit", "Origin", "Source"],
        list(_rows(results, contender, file)),
        align="lrrrrlll",
        kind="compact",
    )
    return folded(f"{contender.name}: {file.file}", content)


def _rows(results: RunResults, contender: Contender, file: DeliveredFile) -> Iterator[Sequence[Child]]:
    for name, known in file.figures.items():
        yield _row(heading_of(name, results), known)
    for name, known in contender.counted_by_fvcore.items():
        yield _row(f"{heading_of(name, results)}, independent count", known)


def _row(label: str, known: Measurement) -> Sequence[Child]:
    spread = [numbers.UNKNOWN] * 3
    if known.lower is not None and known.upper is not None:
        spread = [f"{known.lower:.6g}", f"{known.upper:.6g}", numbers.percent(known.level, 0)]
    value = numbers.exact(known) if known.value == round(known.value) else f"{known.value:.6g}"
    return [label, value, *spread, known.unit, known.origin, known.source]
