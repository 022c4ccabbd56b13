"""What every back end owes: a file that the device refuses costs its own timing, and is told of which kind it was."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from latency_models.backends.command import Command
from latency_models.backends.local import Local
from latency_models.backends.ssh import Ssh
from latency_models.failures import (
    FileFailure,
    OutOfMemory,
    PartlyMeasured,
    RefusedFile,
    TimedOut,
    UnsupportedOperator,
    all_timed,
)
from latency_models.timing import Timing
from search_spaces.errors import MeasurementError
from tests.latency_models.backends.conftest import chain, immense, unsupported

PROGRAM = """#!/bin/sh
if grep -q Levitate "$1"; then echo "NOT_IMPLEMENTED : Levitate(1)"; exit 1; fi
if grep -q Expand "$1"; then echo "std::bad_alloc"; exit 134; fi
if grep -q hang "$1"; then sh -c "sleep 47.$PPID"; fi
if grep -q "not a model" "$1"; then echo "no model"; exit 1; fi
echo took $(wc -c < "$1") us
"""


@pytest.fixture(params=["local", "command", "ssh", "ssh binary"])
def backend(request, tmp_path):
    if request.param == "local":
        return Local(visits=3, visit_ms=0.5, drift=0.0)
    program = tmp_path / "bench"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    reading = {"command": (str(program), "{file}"), "pattern": "took ([0-9]+) us", "unit": "us"}
    if request.param == "command":
        return Command(**reading, visits=3, drift=0.0)
    ssh = Ssh(**request.getfixturevalue("board").options(), python=sys.executable, visits=3, visit_ms=0.5, drift=0.0)
    if request.param == "ssh":
        return ssh
    return replace(
        ssh, runtime="binary", python="", folder=f"{ssh.folder}-binary", backoff_s=3600.0, visits=2, **reading
    )


def text_file(path):
    path.write_text("this is not a model")
    return path


# -- the contract


def test_refused_files_are_outcomes_among_the_timings_of_the_others(backend, models, tmp_path):
    odd = [
        unsupported(tmp_path / "strange.onnx"),
        immense(tmp_path / "immense.onnx"),
        text_file(tmp_path / "text.onnx"),
    ]
    files = [odd[0], models[0], odd[1], models[1], odd[2], models[2]]
    with pytest.raises(PartlyMeasured, match=r"3 of 6 files gave no timing, the first: .*strange\.onnx") as caught:
        backend.measure(files, models[1])
    outcomes = caught.value.outcomes
    assert [type(outcome) for outcome in outcomes] == [
        UnsupportedOperator, Timing, OutOfMemory, Timing, RefusedFile, Timing,
    ]  # fmt: skip
    assert [outcome.name if isinstance(outcome, Timing) else outcome.file for outcome in outcomes] == [
        path.name for path in files
    ]
    assert {len(outcome.visits) for outcome in outcomes if isinstance(outcome, Timing)} == {backend.visits}
    assert outcomes[5].latency_ms > outcomes[1].latency_ms
    assert [outcome.kind for outcome in outcomes if isinstance(outcome, FileFailure)] == [
        "unsupported", "out_of_memory", "refused",
    ]  # fmt: skip


def test_where_every_file_is_refused_the_first_is_the_error(backend, models, tmp_path):
    odd = [immense(tmp_path / "immense.onnx"), unsupported(tmp_path / "strange.onnx")]
    with pytest.raises(OutOfMemory, match=r"none of 2 files gave a timing, the first: .*immense\.onnx") as caught:
        backend.measure(odd, models[0])
    assert caught.value.file == "immense.onnx"


def test_a_reference_that_is_refused_is_the_error(backend, models, tmp_path):
    strange = unsupported(tmp_path / "strange.onnx")
    with pytest.raises(UnsupportedOperator) as caught:
        backend.measure([*models, strange], strange)
    assert caught.value.file == "strange.onnx"


def test_files_that_are_all_timed_are_their_timings():
    assert all_timed([]) == []


# -- programs that take too long


def sleepers():
    """Return the processes that a hanging program left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found += [int(entry.name)] if words[0] == b"sleep" and words[1].startswith(b"47.") else []
    return found


@pytest.mark.parametrize("backend", ["command", "ssh binary"], indirect=True)
def test_a_file_on_which_the_program_hangs_is_a_time_out_and_nothing_goes_on(backend, models, tmp_path):
    slow = tmp_path / "slow.onnx"
    slow.write_text("hang")
    with pytest.raises(PartlyMeasured) as caught:
        replace(backend, timeout_s=1.0, visits=1).measure([slow, *models], models[0])
    first, *others = caught.value.outcomes
    assert isinstance(first, TimedOut)
    assert first.file == "slow.onnx"
    assert all(isinstance(outcome, Timing) for outcome in others)
    deadline = time.monotonic() + 5.0
    while sleepers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not sleepers()


# -- a board whose runtime takes the process along


RUNTIME = """
import os, time
import onnxruntime_real as real
SessionOptions, __version__ = real.SessionOptions, real.__version__
opened = []
class InferenceSession(real.InferenceSession):
    def __init__(self, path, *rest, **more):
        content = path if isinstance(path, bytes) else open(path, "rb").read()
        if b"KILL" in content:
            os.kill(os.getpid(), 9)
        if b"CRASH" in content:
            os.abort()
        if b"HANG" in content:
            time.sleep(60)
        opened.append(path)
        if len(opened) > LIMIT:
            os.kill(os.getpid(), 9)
        super().__init__(path, *rest, **more)
"""


@pytest.fixture
def fragile(board, tmp_path):
    """Return a function that makes a board whose runtime dies of some files, or of holding more than `limit`."""
    if "onnxruntime" not in sys.modules:
        pytest.importorskip("onnxruntime")
    real = Path(sys.modules["onnxruntime"].__file__).parent

    def made(limit=1000, **options):
        site = tmp_path / "site"
        site.mkdir()
        (site / "onnxruntime.py").write_text(RUNTIME.replace("LIMIT", str(limit)))
        (site / "onnxruntime_real.py").write_text(
            "import importlib.util, sys\n"
            "stand_in = sys.modules.pop('onnxruntime')\n"
            f"spec = importlib.util.spec_from_file_location('onnxruntime', {str(real / '__init__.py')!r}, "
            f"submodule_search_locations=[{str(real)!r}])\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "sys.modules['onnxruntime'] = module\n"
            "spec.loader.exec_module(module)\n"
            "sys.modules['onnxruntime'] = stand_in\n"
            "sys.modules[__name__] = module\n"
        )
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        fields = {"python": str(python), "visits": 2, "visit_ms": 0.5, "drift": 0.0}
        return Ssh(**board.options() | fields | options)

    return made


def marked(path, word, side=64):
    """Write a sound file that holds a word."""
    import onnx

    chain(path, side=side)
    model = onnx.load(path)
    model.doc_string = word
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("KILL", OutOfMemory, r"odd\.onnx: the board .* killed the process"),
        ("CRASH", RefusedFile, r"odd\.onnx: a command failed on .* with exit code 134"),
        ("HANG", TimedOut, r"odd\.onnx: .* gave no answer within 5 s"),
    ],
    ids=["killed", "crashed", "hangs"],
)
def test_a_file_that_ends_the_boards_process_costs_only_its_own_timing(fragile, models, tmp_path, word, kind, message):
    odd = marked(tmp_path / "odd.onnx", word)
    with pytest.raises(PartlyMeasured, match=message) as caught:
        fragile(timeout_s=5.0).measure([models[0], odd, *models[1:]], models[0])
    assert [type(outcome) for outcome in caught.value.outcomes] == [Timing, kind, Timing, Timing]
    assert caught.value.outcomes[1].file == "odd.onnx"


def test_a_board_that_cannot_hold_a_group_is_no_files_fault(fragile, models):
    with pytest.raises(OutOfMemory, match="lower `group`") as caught:
        fragile(limit=3).measure(models, models[0])
    assert caught.value.file == ""


def test_a_smaller_group_then_fits(fragile, models):
    assert len(fragile(limit=3, group=2).measure(models, models[0])) == 3


def test_a_reference_that_ends_the_boards_process_is_named(fragile, models, tmp_path):
    odd = marked(tmp_path / "odd.onnx", "KILL")
    with pytest.raises(OutOfMemory, match=r"^odd\.onnx: ") as caught:
        fragile().measure(models, odd)
    assert caught.value.file == "odd.onnx"


def test_a_lost_board_is_no_refusal(board, models):
    gone = Ssh(**board.options() | {"port": 1, "retries": 0}, python=sys.executable)
    with pytest.raises(MeasurementError, match="was lost") as caught:
        gone.measure(models, models[0])
    assert not isinstance(caught.value, FileFailure | PartlyMeasured)
