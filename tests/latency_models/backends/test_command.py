"""A real small program behind the back end: what it prints becomes samples, how it fails becomes a kind of error."""

import inspect
import os
import re
import subprocess
import sys
import tomllib

import pytest

from latency_models.backends.command import Command
from latency_models.failures import OutOfMemory, RefusedFile, TimedOut, UnsupportedOperator
from search_spaces.errors import ConfigError, DeviceError, MeasurementError

PROGRAM = """
import os, sys, time
words = open(sys.argv[1]).read().split()
if words[0] == "hang":
    time.sleep(60)
if words[0] == "killed":
    os.kill(os.getpid(), 9)
if words[0] == "fail":
    sys.exit(" ".join(words[1:]))
if words[0] == "say":
    print(" ".join(words[1:]))
for word in words:
    print(f"run took {word} us")
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "bench.py"
    path.write_text(PROGRAM)
    return Command(
        command=(sys.executable, str(path), "{file}"), pattern=r"took ([0-9.e+-]+) us", unit="us", visits=2, drift=0.0
    )


def model(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_latency_printed_is_a_sample_in_milliseconds(program, tmp_path):
    small, large = model(tmp_path, "a.onnx", "1500 1250"), model(tmp_path, "b.onnx", "2.5e3")
    first, second = program.measure([small, large], small)
    assert [list(visit) for visit in first.visits] == [[1.5, 1.25], [1.5, 1.25]]
    assert [list(visit) for visit in second.visits] == [[2.5], [2.5]]
    assert (first.clock, first.origin) == ("device", "measured")


@pytest.mark.parametrize("origin", ["measured", "emulated", "estimated"])
def test_latencies_carry_the_origin_that_the_program_has_and_its_own_clock(program, tmp_path, origin):
    from dataclasses import replace

    path = model(tmp_path, "a.onnx", "7")
    (timing,) = replace(program, origin=origin).measure([path], path)
    assert (timing.clock, timing.origin, timing.measurement().origin) == ("device", origin, origin)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("killed", OutOfMemory, "was killed on odd.onnx"),
        ("fail std::bad_alloc", OutOfMemory, "odd.onnx needs more memory"),
        ("fail NOT_IMPLEMENTED : Could not find an implementation for Levitate(1)", UnsupportedOperator, "Levitate"),
        ("fail no such layer", RefusedFile, "refuses odd.onnx: exit code 1: no such layer"),
        ("say nothing", RefusedFile, "printed no latency above 0"),
        ("0", RefusedFile, "no latency above 0"),
    ],
    ids=["killed", "allocation", "operator", "exit code", "no number", "zero"],
)
def test_failures_are_told_apart(program, tmp_path, text, error, message):
    path = model(tmp_path, "odd.onnx", text)
    with pytest.raises(error, match=message) as caught:
        program.measure([path], path)
    assert caught.value.file == "odd.onnx"


def test_a_program_that_hangs_is_a_time_out(program, tmp_path):
    from dataclasses import replace

    path = model(tmp_path, "slow.onnx", "hang")
    with pytest.raises(TimedOut, match=r"took longer than 0\.5 s on slow\.onnx"):
        replace(program, timeout_s=0.5).measure([path], path)


def test_a_reference_that_never_settles_fails(tmp_path):
    path = tmp_path / "drift.py"
    path.write_text(
        "import pathlib, sys\n"
        "count = pathlib.Path(sys.argv[0] + '.count')\n"
        "number = int(count.read_text()) if count.exists() else 1\n"
        "count.write_text(str(2 * number))\n"
        "print(number)\n"
    )
    file = model(tmp_path, "a.onnx", "x")
    command = Command(command=(sys.executable, str(path), "{file}"), pattern=r"^([0-9]+)$", visits=4)
    with pytest.raises(MeasurementError, match="reference network strayed by more than 3 %"):
        command.measure([file], file)


def test_the_fingerprint_changes_with_the_program_and_its_version(program, tmp_path):
    from dataclasses import replace

    told = replace(program, version=(sys.executable, "-c", "print('v 3')")).fingerprint()
    assert told["version"] == "v 3"
    assert told["program_sha256"] == program.fingerprint()["program_sha256"]
    with pytest.raises(DeviceError, match="no program 'not-there'"):
        Command(command=("not-there", "{file}"), pattern="(x)").fingerprint()


@pytest.mark.parametrize(
    "change",
    [{"unit": "ms"}, {"pattern": "run took (.*) us"}, {"origin": "emulated"}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_number_changes_the_fingerprint(program, change):
    from dataclasses import replace

    assert replace(program, **change).fingerprint() != program.fingerprint()


@pytest.mark.parametrize(
    ("printed", "latency_ms"),
    [
        ("0.25\\n", 0.25),
        ("12\\n0.25\\n\\n  \\n", 0.25),
        ("loading model 3\\nmean of 50 runs: 1.5e-1 ms\\n", 0.15),
        ("latency=.5ms", 0.5),
        ("5 6 7", 7.0),
    ],
    ids=["bare", "last line", "with words", "no leading zero", "last of several"],
)
def test_without_a_pattern_the_last_number_of_the_last_line_is_read(tmp_path, printed, latency_ms):
    path = model(tmp_path, "a.onnx", f"import sys; sys.stderr.write('WARNING 99\\n'); sys.stdout.write('{printed}')")
    known = Command(command=(sys.executable, "{file}"), visits=1, drift=0.0)
    assert known.measure([path], path)[0].latency_ms == pytest.approx(latency_ms)


@pytest.mark.parametrize(
    "printed", ["0.25\\ndone", "0.25 ms at p50", "v2"], ids=["no number", "in a word", "only words"]
)
def test_without_a_pattern_a_last_line_that_ends_in_words_with_digits_is_refused(tmp_path, printed):
    path = model(tmp_path, "a.onnx", f"print('{printed}')")
    known = Command(command=(sys.executable, "{file}"), visits=1, drift=0.0)
    with pytest.raises(RefusedFile, match="printed no latency above 0 that matches"):
        known.measure([path], path)


@pytest.mark.parametrize(
    ("command", "pattern", "unit", "message"),
    [
        (("run",), "(x)", "ms", "command must have '{file}'"),
        ((), "(x)", "ms", "command must have '{file}'"),
        (("run", "{file}"), "(x", "ms", "no regular expression"),
        (("run", "{file}"), "x", "ms", "must have one group"),
        (("run", "{file}"), "(x)", "hours", "unit must be one of"),
    ],
    ids=["no file", "empty", "bad pattern", "no group", "unit"],
)
def test_templates_that_cannot_work_are_refused(command, pattern, unit, message):
    with pytest.raises(ConfigError, match=message):
        Command(command=command, pattern=pattern, unit=unit)


@pytest.mark.parametrize(
    ("pattern", "unit", "printed", "latency_ms"),
    [
        (r"Inference \(avg\): ([0-9.e+]+)", "us", "Warmup (avg): 9e9, Inference (avg): 1234.5", 1.2345),
        (r"GPU Compute Time: min = ([0-9.]+) ms", "ms", "GPU Compute Time: min = 0.812 ms, max = 1.9 ms", 0.812),
        (r"min = +([0-9.]+)", "ms", "   mobilenet  min =   11.23  max =   12.40  avg =   11.70", 11.23),
    ],
    ids=["tflite", "trtexec", "benchncnn"],
)
def test_the_documented_patterns_read_what_those_programs_print(pattern, unit, printed, latency_ms):
    from latency_models.backends.command import read_latencies

    assert pattern in (Command.__doc__ or "")
    assert read_latencies(printed, pattern, unit, file="m.onnx") == [pytest.approx(latency_ms)]


def documented_examples():
    """Return the run files that the docstring shows."""
    text = inspect.cleandoc(Command.__doc__ or "")
    blocks = re.findall(r"(?:^    .*\n)+", text.partition("Attributes:")[0], re.MULTILINE)
    return [tomllib.loads(inspect.cleandoc(block)) for block in blocks]


def test_the_documented_examples_are_commands_on_float32_files():
    found = documented_examples()
    assert [example["device"]["backend"]["command"][0] for example in found] == ["./bench.sh", "trtexec", "./ncnn.sh"]
    for example in found:
        backend = example["device"]["backend"]
        assert backend.pop("type") == "command"
        assert example["device"]["precisions"] == ["float32"]
        assert Command(**backend).live


def test_the_documented_script_for_a_phone_pushes_one_file_for_every_network(tmp_path):
    (line,) = re.findall(r"`(rm -rf converted && onnx2tf [^`]*)`", Command.__doc__ or "")
    stand_ins = {
        "onnx2tf": 'mkdir -p "$4" && touch "$4/$(basename "$2" .onnx)_float32.tflite"',
        "adb": 'test "$1" = shell || test $# -eq 3 || exit 1\necho "$@"',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bench.sh").write_text(" ".join(line.split()))
    for network in ("a.onnx", "b.onnx"):
        done = subprocess.run(
            ["sh", str(tmp_path / "bench.sh"), network],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0
        assert f"{network.removesuffix('.onnx')}_float32.tflite" in done.stdout
