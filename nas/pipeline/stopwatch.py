"""Wall time by step, kept in the run directory, so that a run that was stopped adds up what all its sessions took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nas.run import disk_errors, read_json, write_json

FILE = "seconds.json"


@dataclass(slots=True)
class Stopwatch:
    """Seconds of every step so far.

    What a killed process spent on the step it was in is lost, except in a search, whose log knows it.

    Attributes:
        path: Where they are kept.
        seconds: By step.
    """

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return a run directory's, with what earlier sessions took; raises RunError where its file is damaged."""
        path = folder / FILE
        known = read_json(path) if path.exists() else {}
        return cls(path, {str(name): float(seconds) for name, seconds in known.items()})

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to a step, however the block ends."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._set(name, self.seconds.get(name, 0.0) + time.monotonic() - start)

    def at_least(self, name: str, seconds: float) -> None:
        """Raise a step's time to what is known from elsewhere."""
        if seconds > self.seconds.get(name, 0.0):
            self._set(name, seconds)

    def _set(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(seconds, 3)
        with disk_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.seconds)
