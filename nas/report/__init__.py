"""The report of a run: one HTML file that opens offline, a table for the terminal, and a summary for logs.

Everything is drawn from one value, `nas.results.RunResults`; nothing is computed here that a person would decide by.
Read in this order: `html` (the page), `headline` and `decision` (what a person decides by), `search`, `latency`,
`stages`, `classes`, `provenance` and `appendix` (the other sections), `front` and `figures` (the plots), `elements`
(HTML as values, escaped), `labels`, `numbers` and `shared` (how figures are named and written), `style`, `terminal`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.report.html import render, write_report
    from nas.report.terminal import summary_table, summary_text

_HOME = {"render": "html", "summary_table": "terminal", "summary_text": "terminal", "write_report": "html"}

__all__ = ["render", "summary_table", "summary_text", "write_report"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
