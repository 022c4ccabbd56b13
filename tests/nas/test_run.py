import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas.run import EventLog, RunDirectory, cut_torn_line, read_json, write_atomic, write_json
from search_spaces.errors import RunError


def test_log_cut_at_every_byte_of_its_last_record_keeps_all_others(tmp_path):
    path = tmp_path / "log.jsonl"
    log = EventLog.open(path)
    for number in range(3):
        log.append({"event": "finished", "key": f"key{number}", "metric": 0.5})
    whole = path.read_bytes()
    last = whole.rfind(b"\n", 0, len(whole) - 1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        again = EventLog.open(path)
        assert [event["key"] for event in again.events] == ["key0", "key1"]
        again.append({"event": "finished", "key": "key9", "metric": 0.1})
        assert [event["key"] for event in EventLog.open(path).events] == ["key0", "key1", "key9"]
    path.write_bytes(whole)
    assert len(EventLog.open(path).events) == 3


def test_zeros_that_a_crash_left_at_the_end_are_cut(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event":"a"}\n' + b"\0" * 20 + b"\n")
    assert cut_torn_line(path) == 21
    assert path.read_bytes() == b'{"event":"a"}\n'


def test_damage_before_the_end_is_refused_with_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event":"a"}\nnonsense\n{"event":"b"}\n')
    with pytest.raises(RunError, match=r"log.jsonl line 2 is damaged"):
        EventLog.open(path)


@pytest.mark.parametrize("line", [b"5", b"null", b"[]", b'{"key":"a"}', b'{"event":1}'])
@pytest.mark.parametrize("last", [False, True], ids=["middle", "last"])
def test_a_whole_line_that_is_no_event_is_refused_with_its_line(tmp_path, line, last):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event":"a"}\n' + line + b"\n" + (b"" if last else b'{"event":"b"}\n'))
    with pytest.raises(RunError, match=r'log.jsonl line 2 is damaged .*under "event", got .*restore it'):
        EventLog.open(path)


def identity(path, config):
    with RunDirectory.open(path, config) as run:
        return run.identity


def test_identity_is_that_of_one_directory_and_configuration(tmp_path, monkeypatch):
    here = identity(tmp_path / "a" / "demo", {"seed": 0})
    assert here.startswith("demo-")
    assert identity(tmp_path / "b" / "demo", {"seed": 0}) != here
    monkeypatch.chdir(tmp_path / "a")
    assert identity(Path("demo"), {"seed": 0}) == here
    (tmp_path / "a" / "demo").rename(tmp_path / "a" / "old")
    assert identity(tmp_path / "a" / "demo", {"seed": 1}) != here
    assert identity(tmp_path / "a" / "old", {"seed": 0}) != here


def test_a_directory_of_another_configuration_is_refused(tmp_path):
    config = {"search": {"trials": 40, "rungs": [1, 2]}, "seed": 0}
    other = {"search": {"trials": 50, "rungs": [1, 2]}, "seed": 0}
    with RunDirectory.open(tmp_path / "run", config) as run:
        run.log.append({"event": "started"})
    RunDirectory.open(tmp_path / "run", config).close()
    with pytest.raises(RunError, match=r"search.trials was 40 and is 50"):
        RunDirectory.open(tmp_path / "run", other)


@pytest.mark.parametrize("made", ["teacher", "candidates"])
def test_a_directory_in_which_nothing_was_trained_takes_another_configuration(tmp_path, made):
    RunDirectory.open(tmp_path / "run", {"seed": 0}).close()
    RunDirectory.open(tmp_path / "run", {"seed": 1}).close()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    (tmp_path / "run" / made).mkdir()
    with pytest.raises(RunError, match="seed was 1 and is 2"):
        RunDirectory.open(tmp_path / "run", {"seed": 2})


def test_a_directory_in_use_is_refused_and_free_after_its_owner_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from nas.run import RunDirectory;"
        "run = RunDirectory.open(Path(sys.argv[1]), {}); print('open', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"open\n"
    with pytest.raises(RunError, match=f"in use by process {owner.pid}"):
        RunDirectory.open(tmp_path / "run", {})
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with RunDirectory.open(tmp_path / "run", {}) as run:
        assert run.log.events == []


def test_torn_journal_and_stale_lock_are_mended_on_opening(tmp_path):
    RunDirectory.open(tmp_path, {}).close()
    (tmp_path / "study.journal").write_bytes(b'{"op_code":0}\n{"op_co')
    (tmp_path / "study.journal.lock").write_text("")
    with RunDirectory.open(tmp_path, {}) as run:
        assert run.journal.read_bytes() == b'{"op_code":0}\n'
        assert not (tmp_path / "study.journal.lock").exists()


def test_environment_is_recorded_once_for_every_change(tmp_path):
    for _ in range(2):
        RunDirectory.open(tmp_path, {}).close()
    sessions = read_json(tmp_path / "environment.json")["sessions"]
    assert len(sessions) == 1
    assert sessions[0]["torch"]


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"the disk is full: .*record.json was not written; free space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_full_disk_leaves_no_half_event(tmp_path, monkeypatch):
    log = EventLog.open(tmp_path / "log.jsonl")
    log.append({"event": "a"})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(RunError, match="the disk is full"):
            log.append({"event": "b"})
    assert [event["event"] for event in EventLog.open(log.path).events] == ["a"]


def test_unreadable_json_names_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunError, match=r"bad.json cannot be read"):
        read_json(tmp_path / "bad.json")


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below", "x")
