"""What holds for every registered back end, on this machine and on a real sshd here."""

import sys

import pytest

from latency_models.backends.command import Command
from latency_models.backends.local import Local
from latency_models.backends.memory import Memory
from latency_models.backends.ssh import Ssh
from latency_models.backends.table import Table
from latency_models.timing import BACKENDS
from nas.testing import BackendContract
from tests.contracts.registered import example
from tests.latency_models.backends import sshd

BENCH = """#!/bin/sh
if grep -q "no model" "$1"; then echo "cannot load $1"; exit 1; fi
echo took $(wc -c < "$1") us
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A real sshd on loopback."""
    reason = sshd.why_absent()
    if reason:
        pytest.skip(reason)
    server = sshd.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.cut()
    server.process.terminate()
    server.process.wait()


def local(request):
    return Local(visits=2, visit_ms=0.5, drift=0.0)


def memory(request):
    return Memory()


def table(request):
    path = request.getfixturevalue("tmp_path") / "latencies.csv"
    path.write_text("file,latency_ms\nsmall.onnx,0.5\nlarge.onnx,2.5\nlarge.onnx,2.4\n")
    return Table(path=str(path))


def reading(request):
    program = request.getfixturevalue("tmp_path") / "bench"
    program.write_text(BENCH)
    program.chmod(0o755)
    return {"command": (str(program), "{file}"), "pattern": "took ([0-9]+) us", "unit": "us"}


def command(request):
    return Command(**reading(request), visits=2, drift=0.0)


def ssh(request):
    board = request.getfixturevalue("board")
    return Ssh(**board.options(), python=sys.executable, visits=2, visit_ms=0.5, drift=0.0)


def ssh_binary(request):
    options = request.getfixturevalue("board").options()
    options["folder"] += "-binary"
    return Ssh(**options, runtime="binary", **reading(request), visits=2, drift=0.0)


EXAMPLES = {"command": (command,), "local": (local,), "memory": (memory,), "ssh": (ssh, ssh_binary), "table": (table,)}
SLOW = (ssh_binary,)  # a connection for every visit
CASES = [
    pytest.param((name, number), id=f"{name}-{number}", marks=[pytest.mark.slow] if make in SLOW else [])
    for name in BACKENDS.names()
    for number, make in enumerate(EXAMPLES.get(name, (None,)))
]


class TestRegisteredBackends(BackendContract):
    @pytest.fixture(params=CASES)
    def backend(self, request):
        name, number = request.param
        found = example(EXAMPLES, name, BACKENDS.kind, "tests/contracts/test_backends.py")[number](request)
        assert BACKENDS.name_of(type(found)) == name
        return found
