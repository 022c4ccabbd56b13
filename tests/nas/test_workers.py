import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.workers import Workers
from search_spaces.errors import RunError


def make_state(offset):
    return {"offset": offset, "pid": os.getpid()}


def add(state, number):
    return state["offset"] + number, state["pid"], os.environ.get("OMP_NUM_THREADS")


def fail(_state, number):
    raise ValueError(f"job {number}")


def die(_state, _number):
    os._exit(1)


@pytest.mark.parametrize("count", [1, 2])
def test_every_call_is_answered_with_its_number(count):
    with Workers(count, make_state, 10) as workers:
        results = dict(workers.run(add, [(number,) for number in range(5)]))
    assert {number: result[0] for number, result in results.items()} == {n: 10 + n for n in range(5)}
    assert all((result[1] == os.getpid()) == (count == 1) for result in results.values())
    assert all(result[2] == "1" for result in results.values())


def test_errors_of_jobs_come_through():
    with Workers(2, make_state, 0) as workers, pytest.raises(ValueError, match="job"):
        list(workers.run(fail, [(1,), (2,)]))


def test_a_dead_worker_is_one_sentence():
    with Workers(2, make_state, 0) as workers, pytest.raises(RunError, match="a worker process died"):
        list(workers.run(die, [(1,), (2,)]))


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = (
        "import sys, time\n"
        "sys.path.insert(0, 'tests/nas')\n"
        "import test_workers\n"
        "from nas.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    workers = Workers(2, test_workers.make_state, 0)\n"
        "    found = [result[1] for _, result in workers.run(test_workers.add, [(n,) for n in range(4)])]\n"
        "    print(*sorted(set(found)), flush=True)\n"
        "    time.sleep(60)\n"
    )
    file = tmp_path / "parent.py"
    file.write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert workers
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        Workers(0, make_state, 0)
