"""Sentences about data: how many of what, and the first few by name."""

from collections.abc import Sequence

NAMED = 5
"""How many images, classes or groups a sentence names; the rest is counted."""


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def listed(what: str, names: Sequence[str], *, of: int | None = None) -> str:
    """Return a sentence: what is counted, how many there are (of how many), the first few in parentheses."""
    total = "" if of is None else f" of {of}"
    return f"{what}: {len(names)}{total} ({some(names)})."
