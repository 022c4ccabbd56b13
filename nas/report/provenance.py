"""The section on where everything came from: cost, seeds, versions, device, data, and what each origin means."""

from collections.abc import Mapping, Sequence

from nas.report import numbers
from nas.report.elements import Child, Markup, bar, bullets, element, section, table
from nas.report.labels import ORIGINS
from nas.results import RunResults


def provenance(results: RunResults) -> Markup:
    """Return what the run cost and all that is needed to repeat it."""
    images = ", ".join(f"{numbers.count(n)} {split}" for split, n in results.images.items())
    return section(
        "provenance",
        "Cost and provenance",
        _cost(results.seconds),
        element("h3", "Data"),
        bullets([f"Images: {images}.", *results.data_notes]),
        element("h3", "Device and environment"),
        element("div", *_tables(results), class_="columns"),
        _legend(),
    )


def _cost(seconds: Mapping[str, float]) -> Markup:
    longest, total = max(seconds.values(), default=0.0), sum(seconds.values())
    rows: list[Sequence[Child]] = [
        [
            step,
            numbers.duration(taken),
            numbers.percent(taken / total, 0) if total else "",
            bar(taken / (longest or 1.0)),
        ]
        for step, taken in seconds.items()
    ]
    rows.append(["all steps", numbers.duration(total), "", None])
    head = ["Step", "Wall time", "Share", ""]
    return table("What the run cost", head, rows, align="lrrl", kind="compact")


def _tables(results: RunResults) -> list[Markup]:
    seeds = {name: str(seed) for name, seed in results.seeds.items()}
    named = (
        (f"Device {results.device}", results.fingerprint),
        ("Versions and machine", results.environment),
        ("Seeds", seeds),
    )
    return [
        table(caption, ["Name", "Value"], [[name, value] for name, value in facts.items()], align="ll", kind="compact")
        for caption, facts in named
        if facts
    ]


def _legend() -> Markup:
    terms = [element("div", element("dt", origin), element("dd", meaning)) for origin, meaning in ORIGINS.items()]
    return element(
        "aside",
        element("h3", "How a figure is known"),
        element("dl", *terms, class_="facts"),
        element(
            "p",
            "1 kB is 1000 bytes. A point is a hundredth of a share. Validation images chose networks and judged "
            "stages; test images did neither. An interval speaks of new images like these, or of repeated timings, "
            f"and not of the spread between trainings. {numbers.UNKNOWN} marks what is not known.",
        ),
    )
