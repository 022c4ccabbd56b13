"""`fill` on folders of tiny files, most of them with a made-up clock that changes its speed."""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latency_models.backends import timing_script
from latency_models.backends.table import read_table
from latency_models.backends.timing_script import fill
from tests.latency_models.backends.conftest import chain, unsupported

ROOT = Path(__file__).parents[3]
GROUP_BEGINS = "timing files "
TICK_MS = 1e3 / 1024  # sums of it are exact
AGAIN = "the board was slower or faster"


class Clock:
    """A clock that ticks once each time it is read, so that every run takes `speed` ticks, or scales another one.

    As a message receiver it takes its next speed whenever a group of files begins, and keeps what was said.
    """

    def __init__(self, *speeds, source=None):
        self.speeds, self.speed, self.elapsed, self.said = list(speeds), 1.0, 0.0, []
        self.source, self.last = source, source() if source else 0.0

    def now(self):
        tick = TICK_MS / 1e3
        if self.source:
            self.last, before = self.source(), self.last
            tick = self.last - before
        self.elapsed += self.speed * tick
        return self.elapsed

    def say(self, text):
        self.said.append(text)
        if text.startswith((GROUP_BEGINS, AGAIN)):
            self.speed = self.speeds.pop(0)

    def told(self, start):
        return [text for text in self.said if text.startswith(start)]


def empty_table(folder, names):
    (folder / "table.csv").write_text("file,latency_ms,origin\n" + "".join(f"{name},,tabulated\n" for name in names))


@pytest.fixture
def folder(tmp_path):
    """Six copies of one file, not timed yet."""
    chain(tmp_path / "net0.onnx", side=64)
    names = [f"net{number}.onnx" for number in range(6)]
    for name in names[1:]:
        shutil.copy(tmp_path / "net0.onnx", tmp_path / name)
    empty_table(tmp_path, names)
    return tmp_path


def rounds(folder):
    return json.loads((folder / "table.rounds.json").read_text())


def levels(folder):
    """Return the reference's level in every group, in ticks."""
    return [statistics.median(group["levels_ms"]) / TICK_MS for group in rounds(folder)["groups"]]


def latencies(folder):
    """Return the median latency of every file, in the table's order."""
    rows = read_table(folder / "table.csv")
    return {name: statistics.median(sample for sample, _ in samples) for name, samples in rows.items()}


def fill_by(clock, folder, **options):
    return fill(folder, group=2, visits=3, now=clock.now, say=clock.say, **options)


def empty_rows(folder, *names):
    with (folder / "table.csv").open(newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["file"] not in names]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "latency_ms", "origin"])
        writer.writeheader()
        writer.writerows([*kept, *({"file": name} for name in names)])


@pytest.mark.parametrize("speeds", [(1.0, 1.6, 1.0), (1.6, 1.0, 1.0)], ids=["second group", "first group"])
def test_a_clock_that_changes_between_groups_leaves_no_level_in_the_table(folder, speeds):
    clock = Clock(*speeds, 1.6)  # the last one where the slower group is taken again
    assert fill_by(clock, folder) == (6, 0)
    assert list(latencies(folder)) == [f"net{number}.onnx" for number in range(6)]
    assert list(latencies(folder).values()) == pytest.approx([TICK_MS] * 6, rel=1e-5)
    assert levels(folder) == pytest.approx(speeds, rel=1e-5)
    assert clock.told("the reference still strays by over 3 % in 1 of 3 groups")


def fill_with_real_times(folder, *speeds):
    for _ in range(3):  # rounds on a busy machine may stray
        clock = Clock(*speeds, source=time.thread_time)
        try:
            fill(folder, group=2, visits=9, drift=0.05, now=clock.now, say=clock.say)
        except SystemExit as error:
            if "not steady" not in str(error):
                raise
        else:
            return list(latencies(folder).values())
    pytest.skip("this machine is too busy for a steady reference")


def test_real_runs_agree_within_a_few_percent_whatever_the_speed_of_their_group(folder):
    found = fill_with_real_times(folder, 1.0, 1.7, 0.8, 1.7, 1.7, 1.7)
    assert len(found) == 6
    assert max(found) / min(found) < 1.15  # the groups' clocks are over twice apart


def test_groups_of_small_and_of_large_files_share_one_reference(tmp_path):
    sides = (32, 33, 256, 257, 768, 769)
    for side in sides:
        chain(tmp_path / f"net{side}.onnx", side=side)
    empty_table(tmp_path, [f"net{side}.onnx" for side in sides])
    found = fill_with_real_times(tmp_path, *[1.0] * 6)
    assert min(found[4:]) > 5 * max(found[:2])  # each over its own reference, they would be alike


def test_rounds_in_which_the_reference_strays_are_taken_again(folder):
    clock, reads = Clock(), []
    opened, one_round = 7 * 8, (6 + 2) * 8 * 2  # times the clock is read
    slow = range(opened + 2 * one_round, opened + 3 * one_round)

    def now():
        clock.speed = 2.0 if len(reads) in slow else 1.0
        reads.append(clock.now())
        return reads[-1]

    assert fill(folder, group=6, visits=5, now=now, say=[].append) == (6, 0)
    (group,) = rounds(folder)["groups"]
    assert group["levels_ms"] == pytest.approx([TICK_MS] * 5)
    assert len(reads) == opened + 6 * one_round


def test_a_group_that_strays_is_taken_once_more_and_joins_the_others(folder):
    clock = Clock(1.0, 1.6, 1.0, 1.0)
    fill_by(clock, folder)
    assert levels(folder) == pytest.approx([1, 1, 1], rel=1e-5)
    assert clock.told(AGAIN)
    assert not clock.told("the reference still strays")
    assert not clock.speeds


def test_a_group_is_not_taken_a_third_time_by_another_fill(folder):
    fill_by(Clock(1.0, 1.6, 1.0, 1.6), folder)
    before = (folder / "table.csv").read_bytes()
    clock = Clock()
    assert fill_by(clock, folder) == (0, 0)
    assert (folder / "table.csv").read_bytes() == before
    assert not clock.told(AGAIN)


@pytest.mark.parametrize("speed", [1.0, 1.6], ids=["same clock", "slower clock"])
def test_a_fill_killed_after_its_first_group_goes_on_at_the_same_level(folder, speed):
    killed = f"""
import os, pathlib, signal
from tests.latency_models.backends.test_timing_script import Clock, fill_by
clock = Clock(1.0, 1.0)
def say(text):
    if text.startswith("timing files 3"):
        os.kill(os.getpid(), signal.SIGKILL)
clock.say = say
fill_by(clock, pathlib.Path({str(folder)!r}))
"""
    done = subprocess.run([sys.executable, "-c", killed], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(latencies(folder)) == ["net0.onnx", "net1.onnx"]
    (first,) = rounds(folder)["groups"]
    reference = rounds(folder)["reference"]

    clock = Clock(speed, speed, speed)
    assert fill_by(clock, folder) == (4, 0)
    assert rounds(folder)["reference"] == reference
    assert rounds(folder)["groups"][0]["visits_ms"].keys() == first["visits_ms"].keys()
    if speed == 1.0:
        assert rounds(folder)["groups"][0] == first
    found = list(latencies(folder).values())
    assert len(found) == 6
    assert found == pytest.approx([found[0]] * 6, rel=1e-5)
    assert found[0] == pytest.approx(speed * TICK_MS, rel=1e-5)  # the level that most rounds had


def test_one_killed_between_its_two_files_times_the_group_again(folder):
    fill_by(Clock(1.0, 1.0, 1.0), folder)
    empty_rows(folder, "net4.onnx", "net5.onnx")  # as if the table had not been written after the rounds
    clock = Clock(1.0)
    assert fill_by(clock, folder) == (2, 0)
    assert len(rounds(folder)["groups"]) == 3
    assert len(latencies(folder)) == 6


def test_every_sample_is_kept_and_makes_the_rows(folder):
    fill_by(Clock(1.0, 1.02, 0.99), folder)
    groups = rounds(folder)["groups"]
    center = statistics.median(level for group in groups for level in group["levels_ms"])
    rows = read_table(folder / "table.csv")
    for group in groups:
        for name, visits in group["visits_ms"].items():
            assert all(len(samples) >= 5 for samples in visits)
            made = [min(samples) * center / level for samples, level in zip(visits, group["levels_ms"], strict=True)]
            assert [sample for sample, _ in rows[name]] == pytest.approx(made, abs=1e-6)


def test_the_reference_is_the_whole_network_of_middling_size(tmp_path):
    sides = {"small.onnx": 16, "middle.onnx": 48, "large.onnx": 96, "b1.onnx": 8, "b2.onnx": 9, "b3.onnx": 10}
    for name, side in sides.items():
        chain(tmp_path / name, side=side)
    empty_table(tmp_path, sides)
    entries = [{"file": name, "purpose": "block" if name.startswith("b") else "probe"} for name in sides]
    assert timing_script.CarriedSet(tmp_path).references()[0] != "middle.onnx"
    (tmp_path / "probes.json").write_text(json.dumps({"files": entries}))
    carried = timing_script.CarriedSet(tmp_path)
    assert carried.references()[0] == "middle.onnx"
    assert set(carried.references()[3:]) == {"b1.onnx", "b2.onnx", "b3.onnx"}


def test_a_refused_file_costs_only_itself_even_where_it_was_to_be_the_reference(folder):
    names = [f"net{number}.onnx" for number in range(6)]
    assert timing_script.CarriedSet(folder).references()[0] == "net3.onnx"
    unsupported(folder / "net3.onnx")
    empty_table(folder, [*names, "absent.onnx"])
    clock = Clock(1.0, 1.0, 1.0, 1.0)
    assert fill_by(clock, folder) == (5, 2)
    assert len(clock.told("net3.onnx is left out (unsupported): ")) == 1
    assert len(clock.told("absent.onnx is left out (refused): ")) == 1
    assert set(latencies(folder)) == set(names) - {"net3.onnx"}
    assert "net3.onnx,,tabulated\n" in (folder / "table.csv").read_text()


def test_where_every_file_is_refused_each_reason_is_told(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        unsupported(tmp_path / name)
    empty_table(tmp_path, ["a.onnx", "b.onnx"])
    clock = Clock()
    assert fill_by(clock, tmp_path) == (0, 2)
    assert [len(clock.told(f"{name} is left out (unsupported)")) for name in ("a.onnx", "b.onnx")] == [1, 1]


def test_a_file_at_which_the_process_ended_is_left_out_once(folder):
    (folder / "table.opening").write_text("net5.onnx")
    clock = Clock(1.0, 1.0, 1.0)
    assert fill_by(clock, folder) == (5, 1)
    assert clock.told("net5.onnx is left out: the last fill ended as it was opened")
    assert fill_by(Clock(1.0), folder) == (1, 0)
    assert not (folder / "table.opening").exists()


def test_latencies_of_another_tool_and_further_columns_stay_as_they_are(folder):
    (folder / "table.csv").write_text("\ufefffile,latency_ms,note\nnet0.onnx,7.5,by hand\nnet1.onnx,,mine\n")
    clock = Clock(1.0)
    assert fill_by(clock, folder) == (1, 0)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"file": "net0.onnx", "latency_ms": "7.5", "note": "by hand", "origin": ""}
    assert [row["note"] for row in rows[1:]] == ["mine"] * 3
    assert clock.told("1 files hold latencies that were not taken here")


@pytest.mark.parametrize("change", ["reference", "runtime"])
def test_a_fill_does_not_go_on_under_other_conditions(folder, change, capsys):
    fill_by(Clock(1.0, 1.0, 1.0), folder)
    names = [f"net{number}.onnx" for number in range(6)]
    if change == "reference":
        chain(folder / rounds(folder)["reference"], side=32)
    else:
        record = rounds(folder)
        record["conditions"]["runtime"] = "onnxruntime 0.1"
        (folder / "table.rounds.json").write_text(json.dumps(record))
    empty_rows(folder, "net5.onnx")
    with pytest.raises(SystemExit) as ended:
        fill_by(Clock(1.0), folder)
    assert ended.value.code == 2
    assert f"begun under other conditions ({change} " in capsys.readouterr().err
    empty_table(folder, names)
    assert fill_by(Clock(1.0, 1.0, 1.0), folder) == (6, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fill", "nofolder"], "nofolder is no folder: name the one that holds table.csv and the model files"),
        (["fill", "."], "table.csv cannot be read: No such file or directory"),
        (["fill", "strange"], "table.csv needs a column `file`"),
        (["fil", "."], "fill FOLDER"),
        (["fill"], "fill FOLDER"),
        ([], "fill FOLDER"),
    ],
    ids=["no folder", "no table", "no column", "unknown", "no argument", "nothing"],
)
def test_commands_that_cannot_work_end_with_a_sentence_and_code_2(tmp_path, arguments, message):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "table.csv").write_text("name,ms\na,1\n")
    command = [sys.executable, timing_script.__file__, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_torn_rounds_file_is_told_with_what_to_do(folder, capsys):
    (folder / "table.rounds.json").write_text('{"groups": [')
    with pytest.raises(SystemExit):
        fill_by(Clock(), folder)
    assert "table.rounds.json cannot be read" in capsys.readouterr().err


def test_help_is_no_error():
    done = subprocess.run(
        [sys.executable, timing_script.__file__, "--help"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fill FOLDER" in done.stdout
