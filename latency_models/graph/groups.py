"""Disjoint groups of names that must be treated alike."""


class Groups:
    """Names joined into groups (union-find); a name that was never joined is a group of its own."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return the name that stands for the group of `name`."""
        parent = self._parent
        while (above := parent.get(name, name)) != name:
            parent[name] = parent.get(above, above)
            name = above
        return name

    def join(self, first: str, *others: str) -> None:
        """Put all names into one group."""
        for other in others:
            self._parent[self.root(other)] = self.root(first)
