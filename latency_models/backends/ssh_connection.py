"""One board behind the system's ssh client: commands, a served conversation, and what its failures mean.

The client is the user's own, so keys, agents, jump hosts and aliases work as they do in the terminal. Arguments go as
a list, never through a local shell; a batch-mode client asks no question that nobody would answer.
"""

import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from latency_models.failures import ConnectionLost, OutOfMemory, TimedOut, failure
from search_spaces.errors import DeviceError, MeasurementError

_HOPELESS = (
    "permission denied",
    "host key verification failed",
    "could not resolve hostname",
    "identity file",
    "bad configuration option",
    "no matching",
    "too many authentication failures",
)
"""What ssh says when trying again would not help."""

_MOST_SKIPPED = 1000
"""Lines that a board's start-up files may print before the first answer."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How a board is reached.

    Attributes:
        arguments: The client, its options and the target.
        host: The target, for messages.
        timeout_s: Longest wait for one answer.
    """

    arguments: tuple[str, ...]
    host: str
    timeout_s: float

    def run(self, command: str, *, stdin: bytes = b"", file: str = "") -> str:
        """Run a command on the board and return what it prints on stdout.

        Args:
            command: For the board's shell.
            stdin: What it reads.
            file: Name of the file it is about, for messages.

        Raises:
            ConnectionLost: The board went away.
            TimedOut: It took too long.
            OutOfMemory: It was killed.
            DeviceError: The board refuses us, or the command fails.
        """
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
                [*self.arguments, kept(command)], input=stdin, capture_output=True, timeout=self.timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"{self.host} did not finish within {self.timeout_s:g} s", file=file) from error
        except OSError as error:
            raise DeviceError(f"the ssh client cannot be run: {error.strerror or error}") from error
        if done.returncode:
            raise self.meaning(done.returncode, (done.stderr + done.stdout).decode(errors="replace"), file=file)
        return done.stdout.decode(errors="replace")

    def serve(self, command: str) -> "Conversation":
        """Start a command that answers requests; close the conversation when done."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the conversation
        process = subprocess.Popen(  # noqa: S603
            [*self.arguments, kept(f"echo; {command}")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        return Conversation(self, process, errors)

    def meaning(self, code: int, text: str, *, file: str = "") -> DeviceError:
        """Return the error that an exit code and the text printed mean."""
        told = " ".join(text.split())[-400:] or "nothing was said"
        if code in (255, -9, -15):
            if any(word in text.lower() for word in _HOPELESS):
                return DeviceError(f"{self.host} cannot be reached by ssh: {told}")
            return ConnectionLost(f"the connection to {self.host} was lost: {told}", file=file)
        if code == 137:
            return OutOfMemory(
                f"the board {self.host} killed the process{f' on {file}' if file else ''}, as it does when memory "
                "runs out; lower `group`, or give the device its `ram`",
                file=file,
            )
        if code == 127:
            return DeviceError(f"{self.host} lacks a program: {told}")
        return MeasurementError(f"a command failed on {self.host} with exit code {code}: {told}")


class Conversation:
    """A process on the board that answers one line of JSON with another."""

    def __init__(self, connection: Connection, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        self._connection = connection
        self._process = process
        self._errors = errors
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any], *, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send a request and return the answer.

        Args:
            request: A JSON object.
            names: Names of files by their path on the board, for messages.

        Raises:
            ConnectionLost: The board went away.
            TimedOut: No answer in time.
            OutOfMemory, UnsupportedOperator, RefusedFile: The board says so.
            DeviceError: The board prints something, but no answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        answer = self._answer()
        if not answer.pop("ok"):
            file = answer["file"]
            known = (names or {}).get(file, file)
            raise failure(answer["kind"], known, answer["message"], device=self._connection.host)
        return answer

    def close(self) -> None:
        """Close the board's stdin, upon which it exits, and wait for the client."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # unsent bytes of a connection that is gone
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        """Return the next line that is an answer; a board's start-up files may print others before it."""
        end = time.monotonic() + self._connection.timeout_s
        skipped: list[str] = []
        while len(skipped) < _MOST_SKIPPED:
            line = self._line(end, skipped)
            if (found := json_object(line)) is not None and "ok" in found:
                return found
            skipped += [line] if line.strip() else []
        raise self._no_answer(skipped)

    def _no_answer(self, skipped: Sequence[str]) -> DeviceError:
        told = " ".join(" ".join(skipped).split())[-400:]
        return DeviceError(
            f"{self._connection.host} prints no answer of the timing script, only: {told}; see what its shell prints "
            "at the start (.bashrc, .profile) and whether it runs commands"
        )

    def _line(self, end: float, skipped: Sequence[str]) -> str:
        """Return the next line, which must come before `end`; `skipped` are those that were no answer."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimedOut(f"{self._connection.host} gave no answer within {self._connection.timeout_s:g} s")
            arrived = os.read(self._process.stdout.fileno(), 1 << 16)
            if not arrived:
                ended = self._ended()
                raise self._no_answer(skipped) if skipped and self._process.returncode == 0 else ended
            self._buffer += arrived
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def _ended(self) -> DeviceError:
        try:
            code = self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        return self._connection.meaning(code or 255, text or "the board closed the conversation")


def kept(command: str) -> str:
    """Return the command so that a shell outlives it: a killed process then shows as exit code 137, not as 255."""
    return f"{command}; exit $?"


def json_object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is; None where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def words(arguments: Sequence[str]) -> str:
    """Return arguments as one line for the board's shell."""
    return shlex.join(arguments)
