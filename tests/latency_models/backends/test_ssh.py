"""Against a real sshd on loopback: what a board is asked, what it answers, and what becomes of every failure."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from latency_models.backends.ssh import Ssh
from latency_models.failures import ConnectionLost, OutOfMemory, RefusedFile, TimedOut, UnsupportedOperator
from search_spaces.errors import ConfigError, DeviceError, MeasurementError
from tests.latency_models.backends.conftest import chain, immense, unsupported


@pytest.fixture
def ssh(board):
    return Ssh(**board.options(), python=sys.executable, visits=3, visit_ms=0.5, drift=0.0)


def files_of(ssh):
    return sorted((Path(ssh.folder) / "files").iterdir())


def test_a_board_says_what_it_is(ssh):
    found = ssh.fingerprint()
    assert found["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert found["machine"] == os.uname().machine
    assert int(found["opset"]) >= 17
    assert int(found["ir_version"]) >= 8
    assert ssh.facts()["memory_bytes"] > 1 << 28


def test_raw_samples_of_every_round_come_back_in_order(ssh, models):
    shares = []
    timings = ssh.measure(models, models[1], progress=shares.append)
    assert [timing.name for timing in timings] == [path.name for path in models]
    assert all(len(timing.visits) == 3 and len(timing.visits[0]) >= 5 for timing in timings)
    assert {(timing.clock, timing.origin) for timing in timings} == {("thread_cpu", "measured")}
    assert timings[2].latency_ms > timings[0].latency_ms
    assert shares[-1] == 1.0


def test_more_files_than_a_group_holds_are_timed_in_groups(ssh, models):
    timings = replace(ssh, group=2).measure(models, models[0])
    assert [timing.name for timing in timings] == [path.name for path in models]
    assert [len(timing.visits) for timing in timings] == [3, 3, 3]


def test_a_file_is_pushed_once_and_named_by_its_content(ssh, models, tmp_path):
    ssh.measure(models, models[0])
    before = {path: path.stat().st_ino for path in files_of(ssh)}
    twin = shutil.copy(models[0], tmp_path / "twin.onnx")
    ssh.measure([Path(twin)], models[0])
    assert {path: path.stat().st_ino for path in files_of(ssh)} == before


def test_files_beyond_the_kept_bytes_are_removed(ssh, models):
    replace(ssh, keep_bytes=0).measure(models, models[0])
    assert files_of(ssh) == []


def test_a_connection_cut_in_the_middle_is_made_again_and_keeps_its_rounds(board, ssh, models):
    cuts = []

    def cut_once(share):
        if not cuts:
            cuts.append((share, board.cut()))

    timings = ssh.measure(models, models[0], progress=cut_once)
    assert cuts[0][0] == pytest.approx(1 / 3)
    assert cuts[0][1] >= 1
    assert [len(timing.visits) for timing in timings] == [3, 3, 3]


def test_a_connection_that_stays_away_is_given_up_after_the_retries(board, ssh, models):
    tries = []

    def cut(share):
        tries.append(board.cut())
        os.kill(board.process.pid, 19)  # SIGSTOP: nobody accepts any more

    try:
        with pytest.raises(ConnectionLost, match="was lost"):
            replace(ssh, connect_s=1.0, retries=1).measure(models, models[0], progress=cut)
    finally:
        os.kill(board.process.pid, 18)  # SIGCONT
    assert tries[0] >= 1


def test_nothing_runs_on_the_board_after_the_connection_was_cut(board, ssh, models):
    connection = ssh._connection
    ssh._prepare()
    conversation = connection.serve(ssh._script("serve"))
    conversation.ask({"do": "trim", "folder": ssh._files, "bytes": 1 << 30})
    running = _serving(ssh)
    assert len(running) == 1
    board.cut()
    with pytest.raises(ConnectionLost):
        conversation.ask({"do": "trim", "folder": ssh._files, "bytes": 1 << 30})
    conversation.close()
    assert _gone(running[0])


def _serving(ssh):
    script = ssh._script_name.encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if (
            len(words) > 2
            and words[1].endswith(script)
            and words[2] == b"serve"
            and str(ssh.folder).encode() in words[1]
        ):
            found.append(int(entry.name))
    return found


def _gone(pid):
    import time

    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_an_operator_the_runtime_lacks_is_told_with_the_file(ssh, models, tmp_path):
    strange = unsupported(tmp_path / "strange.onnx")
    with pytest.raises(UnsupportedOperator, match=r"lacks what strange\.onnx needs.*allow_ops") as caught:
        ssh.measure([strange], models[0])
    assert caught.value.file == "strange.onnx"


def test_a_network_larger_than_memory_is_told_with_the_file(ssh, models, tmp_path):
    with pytest.raises(OutOfMemory, match=r"immense\.onnx needs more memory"):
        ssh.measure([immense(tmp_path / "immense.onnx")], models[0])


def test_a_killed_process_is_out_of_memory(ssh):
    with pytest.raises(OutOfMemory, match="killed the process"):
        ssh._connection.run("sh -c 'kill -9 $$'")


def test_a_file_that_is_no_model_is_refused(ssh, models, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(RefusedFile, match=r"refuses text\.onnx"):
        ssh.measure([tmp_path / "text.onnx"], models[0])


def test_an_answer_too_late_is_a_time_out(ssh, models):
    ssh.measure(models[:1], models[0])
    with pytest.raises(TimedOut, match=r"did not finish within 0\.5 s"):
        replace(ssh, timeout_s=0.5)._connection.run("sleep 30")


def test_outputs_on_the_board_are_those_of_the_host(ssh, models):
    images = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    found = ssh.outputs(models[0], images, batch=1)
    session = onnxruntime.InferenceSession(models[0], providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"image": images[i : i + 1]})[0] for i in range(256)])
    np.testing.assert_array_equal(found, expected)
    assert not [path for path in files_of(ssh) if path.suffix == ".npy"]


def test_a_sustained_run_and_a_distribution_come_from_the_board(ssh, models):
    assert len(ssh.distribution(models[0], runs=50).visits[0]) == 50
    found = ssh.sustained(models[0], seconds=0.2)
    assert found.p50_ms <= found.p95_ms <= found.p99_ms
    assert "runs in" in found.sentence()


def test_any_binary_on_the_board_can_time(ssh, models):
    models = models[:2]
    size = 'printf "took %s us\\n" $(wc -c < $0)'
    binary = replace(
        ssh,
        runtime="binary",
        python="",
        visits=1,
        command=("sh", "-c", size, "{file}"),
        pattern="took ([0-9]+) us",
        unit="us",
    )
    timings = binary.measure(models, models[0])
    assert [timing.latency_ms for timing in timings] == [path.stat().st_size / 1e3 for path in models]
    assert {timing.clock for timing in timings} == {"device"}


@pytest.fixture
def binary(ssh, tmp_path):
    """Return a function that gives a board's program a text and returns the back end that times with it."""

    def written(text, **options):
        path = tmp_path / "bench"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        fields = {"command": (str(path), "{file}"), "pattern": "took ([0-9]+) us", "unit": "us", "visits": 1}
        return replace(ssh, runtime="binary", python="", folder=f"{ssh.folder}-binary", **fields | options)

    return written


def test_what_changes_a_binary_or_its_number_changes_the_fingerprint(binary):
    known = binary("echo took 5 us")
    found = known.fingerprint()
    assert found["machine"] == os.uname().machine
    assert found["program_sha256"] == hashlib.sha256(Path(known.command[0]).read_bytes()).hexdigest()[:16]
    assert {"governor", "frequency_limits_mhz", "cpu"} <= set(found)
    assert replace(known, unit="ms").fingerprint()["unit"] == "ms"
    assert replace(known, pattern="(5)").fingerprint()["pattern"] == "(5)"
    assert binary("echo took 6 us").fingerprint()["program_sha256"] != found["program_sha256"]
    assert replace(known, command=("not-there", "{file}")).fingerprint()["program_sha256"] == "unknown"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("echo 'NOT_IMPLEMENTED : Levitate(1)' >&2; exit 1", UnsupportedOperator, r"lacks what net64\.onnx needs"),
        ("echo 'std::bad_alloc'; exit 134", OutOfMemory, r"net64\.onnx needs more memory"),
        ("kill -9 $$", OutOfMemory, r"was killed on net64\.onnx"),
        ("echo no such layer; exit 255", RefusedFile, r"refuses net64\.onnx: exit code 255: no such layer"),
        ("echo nothing", RefusedFile, "printed no latency above 0"),
    ],
    ids=["operator", "allocation", "killed", "code of ssh itself", "no number"],
)
def test_failures_of_a_binary_are_told_apart_and_leave_nothing_behind(binary, models, text, error, message):
    known = binary(text, backoff_s=3600.0)  # a failure taken for a lost connection would wait for an hour
    with pytest.raises(error, match=message) as caught:
        known.measure(models, models[0])
    assert caught.value.file == "net64.onnx"
    assert files_of(known) == []


def test_a_binary_that_is_not_there_is_named(binary, models):
    with pytest.raises(DeviceError, match=r"cannot run /no/bench: .*(not found|No such file)"):
        binary("", command=("/no/bench", "{file}")).measure(models, models[0])


def test_a_binary_leaves_neither_networks_nor_the_reference_behind(binary, models):
    known = binary("echo took 5 us")
    known.measure(models[:2], models[2])
    assert files_of(known) == []


def test_a_connection_cut_while_a_binary_runs_is_made_again(binary, models, tmp_path):
    runs = tmp_path / "runs"
    cut = f"test $(wc -l < {runs}) -ne 2 || {{ kill -9 $(ps -o ppid= -p $PPID); sleep 1; }}"
    timings = binary(f"echo run >> {runs}\n{cut}\necho took 5 us").measure(models[:1], models[0])
    assert len(runs.read_text().splitlines()) == 4  # reference, network, network again, reference
    assert [timing.latency_ms for timing in timings] == [0.005]


def test_groups_whose_reference_strays_even_the_second_time_are_refused(binary, models, tmp_path):
    doubling = f"n=$(cat {tmp_path}/n || echo 1); echo $((2 * n)) > {tmp_path}/n; echo took $n us"
    with pytest.raises(MeasurementError, match=r"strayed by more than 3 % in 1 of 2 groups, each timed again on"):
        binary(doubling, group=1, drift=0.03).measure(models[:2], models[0])
    assert (tmp_path / "n").read_text().strip() == str(2**9)  # two groups, and the one that strayed once more


@pytest.mark.parametrize(
    "ask",
    [
        lambda ssh, file: ssh.measure([file], file),
        lambda ssh, file: ssh.distribution(file, runs=5),
        lambda ssh, file: ssh.sustained(file, seconds=0.1),
        lambda ssh, file: ssh.outputs(file, np.zeros((1, 64), np.float32)),
    ],
    ids=["measure", "distribution", "sustained", "outputs"],
)
def test_every_verb_binds_the_board_to_the_cores_named(ssh, models, ask):
    ask(replace(ssh, cores=tuple(sorted(os.sched_getaffinity(0))[:1])), models[0])
    with pytest.raises(MeasurementError, match=r"cores \[1000\] cannot be had"):
        ask(replace(ssh, cores=(1000,)), models[0])


def test_inputs_do_not_stay_on_the_board_when_a_run_fails(ssh, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(RefusedFile):
        ssh.outputs(tmp_path / "text.onnx", np.zeros((1, 64), np.float32))
    assert not [path for path in files_of(ssh) if path.suffix == ".npy"]


def test_lines_that_a_board_prints_at_the_start_are_skipped(board, ssh, models):
    noisy = replace(ssh, identity=str(board.noisy), folder=f"{ssh.folder}-noisy")
    assert noisy.fingerprint() == ssh.fingerprint()
    assert len(noisy.measure(models[:1], models[0])) == 1


def test_a_board_that_prints_no_answer_is_told_with_what_it_prints(board, ssh):
    mute = replace(ssh, identity=str(board.mute))
    with pytest.raises(DeviceError, match="runs no commands; it prints: closed for today"):
        mute.fingerprint()
    with (
        mute._connection.serve("true") as conversation,
        pytest.raises(DeviceError, match="prints no answer of the timing script, only: closed for today"),
    ):
        conversation.ask({"do": "facts"})


def test_a_key_that_is_not_accepted_is_an_error_at_once(board, ssh, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    with pytest.raises(DeviceError, match=r"cannot be reached by ssh: .*Permission denied"):
        replace(ssh, identity=str(tmp_path / "other"), retries=9, backoff_s=60.0).fingerprint()


def test_a_board_whose_key_is_not_known_is_refused_unless_asked(ssh, tmp_path):
    with pytest.raises(DeviceError, match="Host key verification failed"):
        replace(ssh, known_hosts=str(tmp_path / "empty")).fingerprint()
    assert replace(ssh, known_hosts=str(tmp_path / "empty"), host_keys="accept-new").fingerprint()
    assert "ssh-ed25519" in (tmp_path / "empty").read_text()


def test_an_interpreter_that_is_not_there_is_named(ssh):
    with pytest.raises(DeviceError, match="no interpreter /no/python"):
        replace(ssh, python="/no/python", folder=ssh.folder + "-other").fingerprint()


def test_a_virtual_environment_is_made_offline_from_pushed_wheels(ssh, tmp_path):
    for name, content in (("numpy", ""), ("onnxruntime", _STAND_IN)):
        _wheel(tmp_path / "wheels", name, content)
    offline = replace(ssh, python="", wheels=str(tmp_path / "wheels"), folder=ssh.folder + "-venv")
    assert offline.fingerprint()["runtime"] == "onnxruntime 9.9"
    assert not (Path(offline.folder) / "wheels").exists()
    offline.remove()
    assert not Path(offline.folder).exists()


def test_a_folder_without_wheels_is_an_error(ssh, tmp_path):
    with pytest.raises(DeviceError, match="holds no wheels"):
        replace(ssh, python="", wheels=str(tmp_path), folder=ssh.folder + "-none").fingerprint()


_STAND_IN = """
__version__ = "9.9"
class SessionOptions:
    log_severity_level = 0
def InferenceSession(model, options, providers):
    if model[1] > 8 or model[-1] > 17:
        raise ValueError("too new")
"""


def _wheel(folder, name, content):
    """Write a wheel of one module: a stand-in for a package that no test can download."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-9.9.dist-info"
    with zipfile.ZipFile(folder / f"{name}-9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


BINARY = {"runtime": "binary", "command": ("bench", "{file}"), "pattern": "([0-9]+)"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "onnxruntim"}, "no runtime 'onnxruntim': did you mean 'onnxruntime'"),
        ({"runtime": "tvm"}, "no runtime 'tvm': known: binary, onnxruntime"),
        ({"host": "-oProxyCommand=x"}, "host must be"),
        ({"host": "a b"}, "host must be"),
        ({"host_keys": "any"}, "host_keys must be"),
        ({"runtime": "binary"}, "command must have"),
        ({"command": ("x", "{file}")}, 'needs runtime = "binary"'),
        ({**BINARY, "threads": 2}, 'threads = 2 has no effect with runtime = "binary": .* in `command`'),
        ({**BINARY, "cores": (3,)}, r'cores = \[3\] has no effect with runtime = "binary": .* in `command`'),
        ({"group": 0}, "at least 1"),
    ],
    ids=[
        "near runtime",
        "unknown runtime",
        "option as host",
        "space in host",
        "host keys",
        "no file",
        "command",
        "threads of a binary",
        "cores of a binary",
        "group",
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Ssh(**{"host": "pi", **options})


def test_a_table_carried_to_a_board_by_hand_is_filled_by_the_same_script(tmp_path):
    from latency_models.backends import timing_script
    from latency_models.backends.table import read_table

    for side in (32, 64):
        chain(tmp_path / f"net{side}.onnx", side=side)
    (tmp_path / "table.csv").write_text("file,latency_ms,origin\nnet32.onnx,,tabulated\nnet64.onnx,0.5,measured\n")
    script = shutil.copy(timing_script.__file__, tmp_path / "timing_script.py")
    done = subprocess.run([sys.executable, script, "fill", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 or "not steady" in done.stderr
    rows = read_table(tmp_path / "table.csv")
    assert rows["net64.onnx"] == [(0.5, "measured")]
    if done.returncode == 0:
        assert len(rows["net32.onnx"]) >= 5


def test_a_file_the_board_refuses_leaves_its_row_empty_and_the_others_filled(tmp_path):
    from latency_models.backends import timing_script
    from latency_models.backends.table import read_table

    chain(tmp_path / "fits.onnx", side=32)
    unsupported(tmp_path / "strange.onnx")
    (tmp_path / "table.csv").write_text("file,latency_ms,origin\nstrange.onnx,,tabulated\nfits.onnx,,tabulated\n")
    for _ in range(3):  # rounds on a busy machine may stray
        done = subprocess.run(
            [sys.executable, timing_script.__file__, "fill", str(tmp_path)], capture_output=True, text=True
        )
        if "not steady" not in done.stderr:
            break
    else:
        pytest.skip("this machine is too busy for a steady reference")
    assert done.returncode == 1
    assert "strange.onnx is left out (unsupported): " in done.stderr
    assert "1 files timed, 1 refused" in done.stdout
    assert list(read_table(tmp_path / "table.csv")) == ["fits.onnx"]
    assert "strange.onnx,," in (tmp_path / "table.csv").read_text()
