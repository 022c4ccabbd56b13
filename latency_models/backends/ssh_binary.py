"""A program on the board that prints latencies: how it is run, what its exit means, what tells it from another."""

import math
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace

from latency_models.backends.command import raise_for_exit
from latency_models.backends.ssh_connection import Connection, words
from latency_models.failures import ConnectionLost, TimedOut
from search_spaces.errors import DeviceError

_EXIT = "__exit_code="
_UNKNOWN = "unknown"
_SPARE_S = 20.0
"""How much longer than the program the connection may take to be made and to end."""

_FACTS = """
echo "machine=$(uname -m)"
echo "cpu=$(grep -m1 -E '^(model name|Model|Hardware)' /proc/cpuinfo | cut -d: -f2)"
echo "program=$(sha256sum "$(command -v {program})" | cut -c1-16)"
echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)"
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
  echo "limits=$(cat "$policy/scaling_min_freq")-$(cat "$policy/scaling_max_freq")"
done
"""


def run_program(connection: Connection, arguments: Sequence[str], *, file: str) -> str:
    """Run a program on the board and return what it prints on both streams.

    Its exit code comes back in what is printed: ssh gives its own failures the code 255, which a program may give too.
    One that takes too long is killed on the board by `timeout`, or it would slow the visits that follow; on a board
    without that command it goes on.

    Args:
        connection: To the board.
        arguments: The program and its arguments.
        file: Name of the model file it is about, for messages.

    Raises:
        ConnectionLost: The board went away.
        TimedOut: The program took too long.
        OutOfMemory: It was killed, or says so.
        UnsupportedOperator: It says so.
        RefusedFile: It fails for another reason.
        DeviceError: The board has no such program, or cannot run it.
    """
    start, limit = time.monotonic(), max(1, math.ceil(connection.timeout_s))
    text = replace(connection, timeout_s=limit + _SPARE_S).run(
        f"limited='timeout -s KILL {limit}'; timeout -s KILL 1 true 2> /dev/null || limited=; "
        f"$limited {words(arguments)} 2>&1; printf '\\n{_EXIT}%s\\n' $?",
        file=file,
    )
    told, found, code = text.rpartition(f"\n{_EXIT}")
    if not found:
        raise ConnectionLost(f"the connection to {connection.host} ended before {arguments[0]} did", file=file)
    if int(code) in (124, 137) and time.monotonic() - start >= limit:
        raise TimedOut(f"{arguments[0]} took longer than {limit} s on {file} on {connection.host}", file=file)
    if int(code) in (126, 127):
        raise DeviceError(f"{connection.host} cannot run {arguments[0]}: {' '.join(told.split())[-300:]}")
    if int(code):
        raise_for_exit(int(code), told, file=file, program=f"{arguments[0]} on {connection.host}")
    return told


def identity(connection: Connection, program: str) -> dict[str, str]:
    """Return machine, CPU, program content, governor and clock limits; "unknown" where the board does not say.

    Asked of the shell alone: a board timed by a binary need not have python3.
    """
    text = connection.run(f"{{ {_FACTS.replace('{program}', shlex.quote(program))} }} 2> /dev/null")

    def told(key: str) -> list[str]:
        return [value.strip() for value in re.findall(rf"^{key}=(.*)$", text, re.MULTILINE) if value.strip()]

    limits = {limit for limit in told("limits") if re.fullmatch("[0-9]+-[0-9]+", limit)}
    in_mhz = sorted("-".join(str(int(end) // 1000) for end in limit.split("-")) for limit in limits)
    return {
        "machine": next(iter(told("machine")), _UNKNOWN),
        "cpu": next(iter(told("cpu")), _UNKNOWN),
        "program_sha256": next(iter(told("program")), _UNKNOWN),
        "governor": next(iter(told("governor")), _UNKNOWN),
        "frequency_limits_mhz": " ".join(in_mhz) or _UNKNOWN,
    }
