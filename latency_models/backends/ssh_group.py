"""Files that a board holds open together: rounds over them, and which file it was when the board's process ends.

Every file is opened by a request of its own. A runtime that refuses it says so; one that crashes, is killed or hangs
on it takes the process along, and then it is known which file that was. The process is started again without it, so
that one file costs only its own timing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latency_models.backends.ssh_connection import Connection, Conversation
from latency_models.failures import ConnectionLost, FileFailure, RefusedFile, failure
from search_spaces.errors import MeasurementError


@dataclass(slots=True, kw_only=True)
class Group:
    """A conversation about some files, made again when it ended.

    Attributes:
        connection: To the board.
        script: Shell line that starts the timing script.
        opening: Request that opens the reference and says how to time.
        files: Paths on the board.
        names: Names of files by their path on the board, for messages.
        refused: Failures of files by their number in `files`.
    """

    connection: Connection
    script: str
    opening: Mapping[str, Any]  # Any: JSON values
    files: Sequence[str]
    names: Mapping[str, str]
    refused: dict[int, FileFailure] = field(default_factory=dict)
    _board: Conversation | None = None
    _opened: list[int] = field(default_factory=list)

    def take_round(self, order: Sequence[int]) -> tuple[float, list[Sequence[float]]]:
        """Visit the files in an order; return the reference's level, and samples of each file that is not refused.

        Raises:
            ConnectionLost: The board went away; asked again, it is connected to again.
            FileFailure: The reference's own, or one that only files opened together cause.
            MeasurementError: The board cannot do what is asked.
        """
        try:
            if self._board is None:
                self._open(range(len(self.files)))
            assert self._board is not None
            number = {place: position for position, place in enumerate(self._opened)}
            asked = {"do": "round", "order": [number[place] for place in order if place in number]}
            answer = self._board.ask(asked, names=self.names)
        except MeasurementError:
            self.close()
            raise
        for position, told in answer["refused"].items():
            self._note(self._opened[int(position)], told)
        visits: list[Sequence[float]] = [()] * len(self.files)
        for place, position in number.items():
            visits[place] = answer["visits"][position]
        return float(answer["level"]), visits

    def close(self) -> None:
        """End the conversation, upon which the board's process exits."""
        board, self._board, self._opened = self._board, None, []
        if board is not None:
            board.close()

    def _open(self, places: Sequence[int]) -> None:
        """Start the board's process and open the reference and those of the files that are not refused."""
        self.close()
        self._board = board = self.connection.serve(self.script)
        try:
            board.ask(self.opening, names=self.names)
        except FileFailure as error:
            raise error if error.file else _about(self.names[self.opening["reference"]], error) from error
        for place in places:
            if place in self.refused:
                continue
            try:
                answer = board.ask({"do": "add", "file": self.files[place]})
            except ConnectionLost:
                raise
            except MeasurementError as error:
                self._blame(place, error)
                self._open(places)
                return
            if "refused" in answer:
                self._note(place, answer["refused"])
            else:
                self._opened.append(place)

    def _blame(self, place: int, error: MeasurementError) -> None:
        """Note that a file ends the board's process; raise the error where it does so only among others."""
        if not self._opened:
            self.refused[place] = _about(self.names[self.files[place]], error)
            return
        self._open([place])
        if place not in self.refused:
            raise error

    def _note(self, place: int, told: Mapping[str, Any]) -> None:
        name = self.names[self.files[place]]
        self.refused[place] = failure(told["kind"], name, told["message"], device=self.connection.host)


def _about(name: str, error: MeasurementError) -> FileFailure:
    """Return the failure of a file that the end of the board's process means."""
    kind = type(error) if isinstance(error, FileFailure) else RefusedFile
    return kind(f"{name}: {error}", file=name)
