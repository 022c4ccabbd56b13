"""The page: sections in the order a person decides by, one file that opens offline and runs nothing of a user's."""

import base64
import hashlib
from pathlib import Path

from plotly.offline import get_plotlyjs

from nas.report.appendix import appendix
from nas.report.classes import classes
from nas.report.decision import decision
from nas.report.elements import Markup, element, joined
from nas.report.headline import headline
from nas.report.latency import latency
from nas.report.provenance import provenance
from nas.report.search import search
from nas.report.stages import stages
from nas.report.style import SCRIPT, STYLE
from nas.results import RunResults
from nas.run import write_atomic

_SECTIONS = (
    ("decision", "Decision"),
    ("search", "Search"),
    ("latency", "Predicted against measured"),
    ("stages", "Stages"),
    ("classes", "Classes"),
    ("provenance", "Cost and provenance"),
    ("figures", "Every figure"),
)


def write_report(results: RunResults, folder: Path) -> Path:
    """Write the report of a run as `index.html` and return where it is.

    Args:
        results: What the run found out.
        folder: Where to; a folder of the run directory, whose files the page links to. All else is in the page.

    Raises:
        KeyError: The results name a winner that is no contender.
        RunError: The disk refuses; an older report is as it was.
    """
    path = folder / "index.html"
    write_atomic(path, render(results))
    return path


def render(results: RunResults) -> str:
    """Return the page; raises KeyError when the results name a winner that is no contender."""
    scripts = (get_plotlyjs(), SCRIPT)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{results.name}: {results.winner} on {results.device}"),
        Markup(f"<style>{STYLE}</style>"),
    )
    links = [element("a", title, href=f"#{anchor}") for anchor, title in _SECTIONS]
    main = element(
        "main",
        headline(results),
        element("nav", *links, aria_label="Sections"),
        decision(results),
        search(results),
        latency(results),
        stages(results),
        classes(results),
        provenance(results),
        appendix(results),
    )
    body = element("body", main, *(Markup(f"<script>{script}</script>") for script in scripts))
    page = joined([element("html", head, body, lang="en")])
    return f"<!DOCTYPE html>\n{page.text}\n"


def _policy(scripts: tuple[str, ...]) -> str:
    """Return what a browser may do with the page: run exactly our scripts, and load nothing.

    Escaping keeps users' text from becoming markup; this holds even where escaping should fail.
    """
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
