"""Reads a page back: its elements, tables and plots, as a browser without script would find them."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser

INLINE = {"a", "code", "span"}
VOID = {"meta", "br", "hr", "img", "input", "link"}


@dataclass
class Table:
    """One table: its caption, column heads, and rows of cell texts."""

    caption: str = ""
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def row(self, start):
        """Return the only row whose first cell starts so."""
        found = [row for row in self.rows if row[0].startswith(start)]
        assert len(found) == 1, f"{len(found)} rows start with {start!r}: {[row[0] for row in self.rows]}"
        return found[0]

    def column(self, start):
        """Return the cells below the only head that starts so."""
        at = [index for index, head in enumerate(self.head) if head.startswith(start)]
        assert len(at) == 1, f"{start!r} in {self.head}"
        return [row[at[0]] for row in self.rows]


class Page(HTMLParser):
    """A parsed page; raises AssertionError where its elements are not nested."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.tables = []
        self.scripts = []
        self.styles = []
        self.words = []
        self._open = []
        self._cell = None
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), f"<{tag}> names an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        if tag == "tr" and "tbody" in self._open:
            self.tables[-1].rows.append([])
        if tag in ("th", "td", "caption"):
            self._cell = []
        elif tag not in INLINE:
            self.words.append(" ")
            if self._cell is not None:
                self._cell.append(" ")
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        opened = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag in ("th", "td", "caption"):
            self._keep(tag, " ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open and self._open[-1] == "style":
            self.styles.append(data)
        else:
            self.words.append(data)
            if self._cell is not None:
                self._cell.append(data)

    def _keep(self, tag, text):
        table = self.tables[-1]
        if tag == "caption":
            table.caption = text
        elif "tbody" in self._open:
            table.rows[-1].append(text)
        else:
            table.head.append(text)

    @property
    def text(self):
        """What a reader sees."""
        return " ".join("".join(self.words).split())

    def table(self, start):
        """Return the only table whose caption starts so."""
        found = [table for table in self.tables if table.caption.startswith(start)]
        assert len(found) == 1, f"{len(found)} tables start with {start!r}: {[it.caption for it in self.tables]}"
        return found[0]

    def has_table(self, start):
        return any(table.caption.startswith(start) for table in self.tables)

    def tags(self, tag):
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self):
        return [attributes["href"] for attributes in self.tags("a")]

    def plots(self):
        """Return the data of every plot by its name."""
        return {a["data-plot"]: json.loads(text) for a, text in self.scripts if "data-plot" in a}

    def programs(self):
        """Return the scripts that a browser runs."""
        return [text for attributes, text in self.scripts if attributes.get("type") != "application/json"]
