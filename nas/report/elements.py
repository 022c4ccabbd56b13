"""HTML as values: every string is escaped where it is put in, so nothing that a user named can become markup.

A page of tables needs no template language. Elements are calls, the type checker reads them, and there is one place
where text turns into HTML.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

_VOID = frozenset({"br", "hr", "img", "meta"})

_SIDES = {"l": "left", "r": "right"}


@dataclass(frozen=True, slots=True)
class Markup:
    """HTML that may stand in a page as it is: made by `element`, or text of our own."""

    text: str


Child = Markup | str | None
"""What an element holds: markup as it is, text to be escaped, or nothing."""


def element(tag: str, *children: Child, **attributes: str | None) -> Markup:
    """Return an element with its children.

    Args:
        tag: Its name.
        *children: In order; None is left out.
        **attributes: `class_` becomes class, `aria_label` becomes aria-label; None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(children).text}</{tag}>")


def joined(children: Iterable[Child], separator: str = "") -> Markup:
    """Return several children in a row, `separator` between them, itself escaped."""
    parts = [child.text if isinstance(child, Markup) else html.escape(child) for child in children if child is not None]
    return Markup(html.escape(separator).join(parts))


def small(*children: Child, kind: str = "") -> Markup:
    """Return a second, quieter line of a cell; a space sets it apart where no style does."""
    return joined([" ", element("span", *children, class_=f"small {kind}".strip())])


def tag(text: str, kind: str = "") -> Markup:
    """Return a word in a frame, such as the origin of a figure or a verdict."""
    return element("span", text, class_=f"tag {kind}".strip())


def file_link(path: str, text: str) -> Markup:
    """Return a link to a file below the run directory, from a page in a folder of it."""
    return element("a", text, href="../" + quote(path))


def bar(share: float, kind: str = "") -> Markup:
    """Return a bar of that share, 0 to 1, of its cell; the figure itself must stand beside it."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    filled = element("span", class_=f"fill {kind}".strip(), style=f"width:{width}")
    return element("span", filled, class_="bar", aria_hidden="true")


def bullets(sentences: Iterable[Child]) -> Markup | None:
    """Return sentences as a list; None when there are none."""
    items = [element("li", sentence) for sentence in sentences]
    return element("ul", *items) if items else None


def section(anchor: str, title: str, *children: Child) -> Markup:
    """Return one section of the page with its heading."""
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def folded(summary: str, *children: Child) -> Markup:
    """Return content that is shown on request; it needs no script."""
    return element("details", element("summary", summary), *children)


def table(
    caption: str, head: Sequence[Child], rows: Iterable[Sequence[Child]], *, align: str, kind: str = ""
) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page.

    Args:
        caption: What it shows.
        head: Column headings.
        rows: Cells, the first of each row its heading.
        align: One letter a column, "l" or "r".
        kind: Class of the table.

    Raises:
        ValueError: A row is not as long as the head.
    """
    sides = [_SIDES[letter] for letter in align]
    headings = [element("th", cell, scope="col", class_=side) for cell, side in zip(head, sides, strict=True)]
    body = []
    for row in rows:
        first, *rest = zip(row, sides, strict=True)
        heading = element("th", first[0], scope="row", class_=first[1])
        body.append(element("tr", heading, *(element("td", cell, class_=side) for cell, side in rest)))
    content = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *headings)),
        element("tbody", *body),
        class_=kind or None,
    )
    return scrolling(caption, content)


def scrolling(label: str, content: Markup) -> Markup:
    """Return wide content in a frame that scrolls, reachable by keyboard."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")
