"""kill -9 in the search and again in training; the same command ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from nas.run import EventLog
from tests.nas.pipeline.small import run_file

DEADLINE_S = 600


def command(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "nas", "run", str(folder / "run.toml"), "--run-dir", str(folder / "run")],
        env={**os.environ, "NAS_DEVICES": str(folder / "devices")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill_when(process, happened):
    end = time.monotonic() + DEADLINE_S
    while not happened():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def events(folder, kind):
    path = folder / "run" / "evaluations.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [line for line in lines if f'"event":"{kind}"'.encode() in line]


@pytest.mark.slow
def test_run_killed_in_search_and_in_training_loses_nothing_and_repeats_nothing(tmp_path):
    run_file(tmp_path)
    kill_when(command(tmp_path), lambda: len(events(tmp_path, "finished")) >= 4)
    finished_before = events(tmp_path, "finished")
    kill_when(command(tmp_path), lambda: list((tmp_path / "run" / "candidates").rglob("*.safetensors")))
    process = command(tmp_path)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors.decode()

    assert events(tmp_path, "finished")[: len(finished_before)] == finished_before
    log = EventLog.open(tmp_path / "run" / "evaluations.jsonl")
    finished = Counter((event["key"], event["rung"]) for event in log.of("finished"))
    assert set(finished.values()) == {1}
    assert set(finished) == {(event["key"], event["rung"]) for event in log.of("started")}
    assert (tmp_path / "run" / "report" / "index.html").exists()
