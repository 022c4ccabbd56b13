"""The program as a user meets it: exit codes, one sentence for every mistake, and no traceback unless asked for."""

import errno
import json
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.candidate import Candidate
from nas.cli.listing import KINDS
from nas.cli.main import main
from nas.config import load_config
from nas.data import TASKS
from nas.pipeline.setup import identity_of
from nas.protocols import EXPORTERS, STAGES
from nas.store import save_candidate
from nas.task import Preprocessing
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.build import build
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.space import decode, sample
from tests.nas.train.tiny import tiny

ROOT = Path(__file__).parents[3]
DIGITS = '[task]\ntype = "digits"\n[data]\nheight = 16\nwidth = 16\ncolor = "grey"\n'
SPACE = '[space]\ntype = "mixed"\nwidths = [[8], [8, 16]]\ndepths = [1, 2]\nkernels = [3]\nhead_widths = [16]\n'
QUICK = '{ type = "local", visits = 1, visit_ms = 0.2, drift = 0 }'
HERE = f'[device]\nname = "here"\nprecisions = ["float32"]\nbackend = {QUICK}\n'
PROBE = "[probe]\nnetworks = 10\n"
BUDGET = '[budget]\nprecision = "float32"\n'
SMALL = DIGITS + SPACE + HERE + PROBE + BUDGET
"""A run that is ready to search within a second."""
COMMANDS = (
    *("init", "check", "run", "search", "report", "train", "compress", "export", "verify", "predict", "measure"),
    *("list", "schema", "device"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """The one sentence on stderr, after any lines about progress."""
        lines = [line for line in self.err.splitlines() if not line.endswith(" %")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("nas: ")
        assert "Traceback" not in self.err
        return lines[0].removeprefix("nas: ")


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    """A folder of device profiles for the whole file, so that this machine is measured once."""
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(autouse=True)
def _own_world(tmp_path, devices, monkeypatch):
    monkeypatch.setenv("NAS_DEVICES", str(devices))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def nas(monkeypatch, capsys):
    """Return a function that runs the program in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    return run


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a run file."""

    def write(text: str, name: str = "run.toml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def images(folder: Path, counts: dict[str, int], size=(20, 24)) -> Path:
    draw = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


# -- help and usage


def test_help_names_every_command(nas):
    found = nas("--help")
    assert found.code == 0
    assert not found.err
    assert all(f" {command} " in found.out for command in COMMANDS)


@pytest.mark.parametrize(
    "command",
    [*((name,) for name in COMMANDS), *(("device", name) for name in ("list", "show", "probe", "fit"))],
    ids=" ".join,
)
def test_every_command_has_help(nas, command):
    found = nas(*command, "--help")
    assert found.code == 0
    assert f"nas {' '.join(command)}" in found.out


def test_without_a_command_help_is_shown_and_that_is_a_usage_error(nas):
    found = nas()
    assert found.code == 2
    assert "Usage: nas" in found.out


@pytest.mark.parametrize(
    "arguments",
    [("nope",), ("run",), ("run", "x.toml", "--no-such-flag"), ("measure", "--threads", "two", "x")],
    ids=" ".join,
)
def test_bad_usage_is_2_and_names_the_help(nas, arguments):
    found = nas(*arguments)
    assert found.code == 2
    assert not found.out
    assert "--help" in found.err
    assert "Traceback" not in found.err


# -- 2: run files and plug-ins


@pytest.mark.parametrize("command", ["check", "run", "search"])
def test_a_missing_run_file_is_2(nas, tmp_path, command):
    found = nas(command, "nope.toml")
    assert (found.code, found.out) == (2, "")
    assert "the run file nope.toml cannot be read" in found.told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "[search]\ntrails = 3\n", "search.trails is no known key: did you mean 'trials'?"),
        (SMALL + '[search]\ntrials = "many"\n', "search.trials must be an integer, got 'many'"),
        (SMALL.replace('"mixed"', '"mixd"'), "space: unknown search space 'mixd': did you mean 'mixed'?"),
        (SMALL.replace('backend = { type = "local"', 'backend = { type = "lokal"'), "did you mean 'local'?"),
        ("[task\n", "run.toml is no TOML"),
        ("", "task is missing"),
        ('plugins = ["none.py"]\n' + SMALL, "none.py' does not exist"),
        (SMALL.replace("kernels = [3]", "kernels = [3, 4]"), "stage1.kernel = 4, "),
        (SMALL.replace("widths = [[8], [8, 16]]", "widths = [[8], [8, 17]]"), "width must be even"),
        (SMALL.replace("depths", 'activations = ["relo"]\ndepths'), "activation must be one of"),
    ],
    ids=["key", "type", "space", "backend", "no TOML", "empty", "plug-in", "kernel", "width", "activation"],
)  # fmt: skip
def test_a_run_file_that_cannot_be_used_is_2_and_one_sentence(nas, config, text, message):
    found = nas("check", config(text))
    assert (found.code, found.out) == (2, "")
    assert message in found.told


def test_an_unknown_augmentation_is_2(nas, config):
    found = nas("check", config(SMALL.replace('"grey"\n', '"grey"\naugment = ["shft"]\n', 1)))
    assert found.code == 2
    assert "did you mean 'shift'" in found.told


# -- 3: nothing feasible


def test_a_budget_that_nothing_meets_is_3_and_names_limit_and_least_value(nas, config):
    found = nas("check", config(SMALL + "latency_ms = 1e-6\n"))
    assert (found.code, found.out) == (3, "")
    assert "latency_ms = 1e-06 ms would have to be at least" in found.told


# -- 4: gates

SPOILING_STAGE = """
from dataclasses import dataclass
from nas.protocols import STAGES
from search_spaces.build import build

@STAGES.register("cli_spoil")
@dataclass(frozen=True, slots=True, kw_only=True)
class Spoil:
    def apply(self, candidate, task, context):
        return candidate.replace(module=build(candidate.architecture, seed=99).eval())
"""


@pytest.mark.slow  # two exports and two processes that import torch: 10 s
@pytest.mark.parametrize(("on_fail", "code"), [("stop", 4), ("revert", 0)])
def test_a_gate_that_ends_the_run_is_4_and_one_that_reverts_is_0(nas, config, plugin, tmp_path, on_fail, code):
    plugin(SPOILING_STAGE, "plugin_of_cli_stage.py")
    (tmp_path / "a.json").write_text(tiny().to_json())
    stages = f'[train]\nepochs = 2\n[[stages]]\ntype = "cli_spoil"\ngate = {{ on_fail = "{on_fail}" }}\n'
    run = config(f'plugins = ["plugin_of_cli_stage.py"]\nworkers = 1\n{SMALL}{stages}')
    found = nas("compress", run, "a.json")
    assert found.code == code
    if code:
        assert "stage cli_spoil accuracy changed by -" in found.told
        assert "beyond a drop of 1.00" in found.told
    else:
        assert "cli_spoil: reverted: accuracy changed by -" in found.out


# -- 5: parity

DAMAGED_EXPORTER = """
from dataclasses import dataclass
from nas.candidate import Exported, ExportedFile, Parity
from nas.export.onnx import OnnxExporter
from nas.protocols import EXPORTERS

@EXPORTERS.register("cli_damaged")
@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    def graph_input(self, preprocessing):
        return OnnxExporter().graph_input(preprocessing)

    def export(self, candidate, task, folder, context):
        parity = Parity(images=9, max_abs_difference=1.0, max_abs_logit=1.0, relative_rms=1.0, agreement=0.1, ties=0,
                        passed=False, reason="top-1 differs on 8 of 9 images")
        file = ExportedFile(path=folder / "model.onnx", precision="float32", num_bytes=1, sha256="", parity=parity,
                            float_operators=0)
        return Exported(folder=folder, files=(file,), manifest={})
"""

FAILING_TASK = """
from dataclasses import dataclass
from nas.data import TASKS

@TASKS.register("cli_failing")
@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    error: str

    def read(self):
        raise {"zero": ZeroDivisionError("division"), "interrupt": KeyboardInterrupt(), "memory": MemoryError(),
               "disk": OSError(28, "No space left on device", "/data/x"), "denied": PermissionError(13, "Denied", "/y"),
               }[self.error]
"""


@pytest.fixture
def plugin(tmp_path):
    """Return a function that writes a plug-in file; what it registers is forgotten after the test."""
    kept = []
    for registry in (TASKS, EXPORTERS, STAGES):
        registry.load()
        kept.append((registry, dict(registry._members), dict(registry._names)))
    before = set(sys.modules)

    def write(text: str, name: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    for registry, members, names in kept:
        registry._members, registry._names = members, names
    for name in [name for name in set(sys.modules) - before if name.startswith("plugin_of_cli")]:
        del sys.modules[name]


def test_an_export_that_computes_something_else_is_5(nas, config, plugin, tmp_path):
    grey = Preprocessing(height=16, width=16, color="grey")
    save_candidate(tmp_path / "one", Candidate(architecture=tiny(), module=build(tiny()).eval(), preprocessing=grey))
    file = plugin(DAMAGED_EXPORTER, "plugin_of_cli_export.py")
    found = nas("export", config(SMALL + '[export]\ntype = "cli_damaged"\n'), "one", "--out", "out", "--plugin", file)
    assert found.code == 5
    assert "top-1 differs on 8 of 9 images" in found.told


# -- 6: data


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "photos is not there, expected a folder of images"),
        ({}, "holds no folder, expected one for each class"),
        ({"cat": 12, "dog": 1}, "class 'dog' has 1 image, but at least 3 are needed"),
    ],
    ids=["missing", "empty", "class with one image"],
)
def test_data_that_cannot_be_used_are_6_and_nothing_is_left_half_written(nas, config, tmp_path, counts, message):
    if counts is not None:
        (tmp_path / "photos").mkdir()
        images(tmp_path / "photos", counts)
    text = SMALL.replace('type = "digits"', 'type = "image_folder"\npath = "photos"')
    for command in ("check", "run"):
        found = nas(command, config(text))
        assert (found.code, found.out) == (6, "")
        assert message in found.told
    left = [path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".tmp")]


def test_a_model_file_that_is_not_there_is_6(nas):
    assert nas("measure", "none.onnx").told == "there is no file none.onnx"
    assert nas("measure", "none.onnx").code == 6


# -- 7: devices


def test_a_file_that_the_runtime_refuses_is_7(nas, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"junk")
    found = nas("measure", "x.onnx")
    assert (found.code, found.out) == (7, "")
    assert "onnxruntime refuses x.onnx" in found.told


def test_a_device_nobody_measured_is_7(nas):
    found = nas("device", "show", "no-such-board")
    assert found.code == 7
    assert "no measured device is called 'no-such-board'" in found.told


def test_a_table_that_is_not_there_is_7(nas, config):
    text = SMALL.replace(HERE, '[device]\nname = "board"\nbackend = { type = "table", path = "board.csv" }\n')
    found = nas("check", config(text))
    assert found.code == 7
    assert "board.csv cannot be read" in found.told


def test_a_space_too_small_for_a_latency_model_is_7(nas, config):
    found = nas("check", config(SMALL.replace("[8, 16]", "[8]").replace("depths = [1, 2]", "depths = [0]")))
    assert found.code == 7
    assert "distinct networks of the space, a latency model needs at least 10: widen the space" in found.told


# -- 8: run directories, disks, checkpoints


def test_a_run_directory_of_another_configuration_is_8_and_stays_as_it_was(nas, config, tmp_path):
    from nas.run import RunDirectory

    identity = identity_of(load_config(config(SMALL + "[search]\ntrials = 8\n")))
    with RunDirectory.open(tmp_path / "runs" / "run", identity) as directory:
        directory.log.append({"event": "started"})
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.json*")}
    for command in ("run", "search"):
        found = nas(command, config(SMALL + "[search]\ntrials = 9\n"))
        assert (found.code, found.out) == (8, "")
        assert "belongs to another configuration: search.trials was 8 and is 9; choose another --run-dir" in found.told
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_file_may_be_mended_in_its_place_as_long_as_nothing_was_trained(nas, config):
    board = 'device = "stm32h743"\n' + DIGITS + SPACE + '[[stages]]\ntype = "quantize"\n[budget]\n'
    for limit in (20, 30):
        found = nas("run", config(f"{board}macs = {limit}\n"))
        assert found.code == 3
        assert f"macs = {limit} MAC would have to be at least" in found.told


def test_a_run_that_is_not_finished_has_no_report(nas, tmp_path):
    found = nas("report", tmp_path)
    assert found.code == 8
    assert "results.json cannot be read" in found.told
    assert "run `nas run` to the end first" in found.told


def test_a_folder_without_a_manifest_is_8(nas, tmp_path):
    found = nas("verify", tmp_path)
    assert found.code == 8
    assert found.told == f"{tmp_path / 'manifest.json'} is not there"


def test_a_candidate_whose_weights_were_changed_is_8(nas, config, tmp_path):
    grey = Preprocessing(height=16, width=16, color="grey")
    save_candidate(tmp_path / "one", Candidate(architecture=tiny(), module=build(tiny()).eval(), preprocessing=grey))
    weights = tmp_path / "one" / "candidate.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    found = nas("export", config(SMALL), "one", "--out", "out")
    assert found.code == 8
    assert "candidate.safetensors is damaged" in found.told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no text"])
def test_an_architecture_that_cannot_be_read_is_8(nas, config, tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    found = nas("predict", config(SMALL), "a.json")
    assert found.code == 8
    assert "the architecture a.json" in found.told


def test_a_run_directory_that_cannot_be_made_is_8(nas, config, tmp_path):
    (tmp_path / "file").write_text("")
    for command in ("check", "run"):
        found = nas(command, config(SMALL), "--run-dir", "file/below")
        assert found.code == 8
        assert "cannot be written: Not a directory" in found.told


def full(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_8_and_leaves_no_half_file(nas, tmp_path, monkeypatch):
    images(tmp_path / "photos", {"cat": 4, "dog": 4})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        found = nas("init", "photos")
    assert found.code == 8
    assert found.told == "the disk is full: run.toml was not written; free space and run again"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_disk_that_fills_while_probes_are_written_is_8_and_leaves_no_profile(nas, config, devices, monkeypatch):
    before = set(devices.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        found = nas("check", config(SMALL.replace('"here"', '"full-disk"')))
    assert found.code == 8
    assert "the disk is full" in found.told
    assert set(devices.iterdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("init", "photos")], ids=" ".join)
def test_output_that_nothing_takes_is_8_and_one_sentence(tmp_path, arguments):
    images(tmp_path / "photos", {"cat": 3, "dog": 3})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)  # what is written last is then refused only when Python ends
    with Path("/dev/full").open("w") as nowhere:
        ended = subprocess.run(
            [sys.executable, "-m", "nas", *arguments],
            stdout=nowhere,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            check=False,
        )
    assert ended.returncode == 8
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("nas: ")
    assert "the disk is full" in ended.stderr


# -- 1, 8 and 130: what happens inside


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("zero", 1, "internal error: ZeroDivisionError: division (--debug shows where)"),
        ("disk", 8, "/data/x: the disk is full; free space and run again"),
        ("denied", 8, "/y: Denied"),
        ("memory", 8, "out of memory; use fewer workers or a smaller batch"),
        ("interrupt", 130, "interrupted; the same command goes on from here"),
    ],
)
def test_whatever_happens_inside_is_one_sentence_and_its_exit_code(nas, config, plugin, error, code, message):
    file = plugin(FAILING_TASK, "plugin_of_cli_task.py")
    text = SMALL.replace('type = "digits"', f'type = "cli_failing"\nerror = "{error}"')
    found = nas("check", config(text), "--plugin", file)
    assert (found.code, found.out, found.told) == (code, "", message)


SLEEPING_TASK = """
import sys, time
from dataclasses import dataclass
from nas.data import TASKS

@TASKS.register("cli_sleeping")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sleeping:
    def read(self):
        print("reading", flush=True)
        time.sleep(60)
"""


def test_ctrl_c_is_130_and_says_that_the_same_command_goes_on(config, plugin, tmp_path):
    file = plugin(SLEEPING_TASK, "plugin_of_cli_sleep.py")
    run = config(SMALL.replace('type = "digits"', 'type = "cli_sleeping"'))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nas", "check", str(run), "--plugin", str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "nas: interrupted; the same command goes on from here\n"
    assert not list((tmp_path / "runs").rglob("*.tmp"))


def test_debug_shows_the_traceback_and_the_next_command_does_not(nas, config, plugin):
    file = plugin(FAILING_TASK, "plugin_of_cli_task.py")
    run = config(SMALL.replace('type = "digits"', 'type = "cli_failing"\nerror = "zero"'))
    found = nas("--debug", "check", run, "--plugin", file)
    assert found.code == 1
    assert "Traceback (most recent call last)" in found.err
    assert 'in read\n    raise {"zero"' in found.err
    assert nas("check", run, "--plugin", file).told.startswith("internal error")


def test_debug_shows_the_cause_of_a_sentence(nas, config):
    found = nas("--debug", "check", config("[task\n"))
    assert found.code == 2
    assert "TOMLDecodeError" in found.err
    assert found.err.splitlines()[-1].startswith("nas: the run file")


# -- list and schema


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("spaces", ("mixed", "mobilenet_v2", "shufflenet_v2")),
        ("blocks", ("inverted_residual", "shuffle_unit")),
        ("latency-models", ("additive",)),
        ("backends", ("local", "table")),
        ("tasks", ("digits", "npz", "image_folder")),
        ("evaluators", ("training",)),
        ("stages", ("prune", "distill", "quantize")),
        ("exporters", ("onnx",)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_list_names_what_there_is_with_fields_and_modules(nas, kind, names):
    found = nas("list", kind)
    assert found.code == 0
    assert all(f" {name} " in found.out for name in names)
    assert "search_spaces." in found.out or "latency_models." in found.out or "nas." in found.out


def test_list_covers_every_kind_and_shows_defaults(nas):
    assert len(KINDS) == 8
    assert "trials" not in nas("list", "stages").out
    assert "threads: int = 1" in nas("list", "backends").out
    assert "path: str (required)" in nas("list", "tasks").out


def test_list_shows_a_plugin_of_a_file(nas, plugin):
    found = nas("list", "tasks", "--plugin", plugin(FAILING_TASK, "plugin_of_cli_task.py"))
    assert found.code == 0
    assert "cli_failing" in found.out
    assert "error: str (required)" in found.out


def test_list_of_an_unknown_kind_is_2(nas):
    found = nas("list", "spces")
    assert found.code == 2
    assert found.told == "no kind of plug-in is called 'spces': did you mean 'spaces'?"


def test_schema_is_json_on_stdout_and_nothing_else(nas):
    found = nas("schema")
    assert (found.code, found.err) == (0, "")
    assert json.loads(found.out)["properties"].keys() >= {"task", "data", "space", "device", "budget", "stages"}


# -- init and check


def test_init_writes_a_run_file_that_check_accepts(nas, tmp_path):
    images(tmp_path / "photos", {"cat": 12, "dog": 12})
    found = nas("init", "photos", "--out", "made.toml")
    assert found.code == 0
    assert "nas check made.toml" in found.out
    text = (tmp_path / "made.toml").read_text()
    assert "# " in text
    made = tomllib.loads(text)
    assert made["task"] == {"type": "image_folder", "path": "photos"}
    assert made["data"]["height"] == 20
    assert made["data"]["metric"] == "accuracy"
    from nas.config import load_config

    assert [gated.gate.max_drop for gated in load_config(tmp_path / "made.toml").stages] == [0.01, 0.005, 0.01]


def test_init_weighs_classes_that_are_unequal(nas, tmp_path):
    images(tmp_path / "photos", {"cat": 12, "dog": 3})
    assert nas("init", "photos").code == 0
    data = tomllib.loads((tmp_path / "run.toml").read_text())["data"]
    assert (data["metric"], data["balance"]) == ("balanced_accuracy", "class_weights")


@pytest.mark.parametrize("name", ['pho"tos', "back\\slash", "mit Umlaut äöü 猫", "new\nline"], ids=repr)
def test_init_writes_any_name_of_a_folder_so_that_it_is_read_back(nas, tmp_path, name):
    images(tmp_path / name, {"cat": 3, "dog": 3})
    assert nas("init", name).code == 0
    assert tomllib.loads((tmp_path / "run.toml").read_text())["task"]["path"] == name


def test_init_takes_an_npz_file_and_writes_its_path_relative_to_the_run_file(nas, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    pixels = np.zeros((12, 28, 28), np.uint8)
    np.savez(tmp_path / "data" / "x.npz", x_train=pixels, y_train=np.arange(12) % 2)
    assert nas("init", "data/x.npz", "--out", "runs/x.toml").code == 0
    assert tomllib.loads((tmp_path / "runs" / "x.toml").read_text())["task"] == {"type": "npz", "path": "../data/x.npz"}


def test_init_overwrites_nothing(nas, config, tmp_path):
    images(tmp_path / "photos", {"cat": 3, "dog": 3})
    kept = config("kept")
    found = nas("init", "photos")
    assert found.code == 2
    assert found.told == "run.toml exists already; choose another --out or remove it"
    assert kept.read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 6, "there is nothing at nowhere"),
        (("photos", "--device", "no-such-board"), 2, "no device file 'no-such-board'"),
    ],
    ids=["no images", "no device"],
)
def test_init_without_images_or_device_writes_nothing(nas, tmp_path, arguments, code, message):
    images(tmp_path / "photos", {"cat": 3, "dog": 3})
    found = nas("init", *arguments)
    assert found.code == code
    assert message in found.told
    assert not (tmp_path / "run.toml").exists()


def test_check_says_what_a_run_would_do_and_trains_nothing(nas, config, tmp_path):
    found = nas("check", config(SMALL))
    assert found.code == 0
    for part in (
        "task digits: 10 classes",
        "train: ",
        "device here: ",
        "within 10 %",
        "random ones fit",
        "expected time",
    ):
        assert part in found.out
    left = {path.name for path in (tmp_path / "runs" / "run").iterdir()}
    assert not left & {"evaluations.jsonl", "study.journal", "candidates"}


# -- a device is measured once, and again when it is another


def test_a_device_is_measured_once_and_another_setting_is_another_device(nas, config, devices):
    def source(text):
        found = nas("check", config(text))
        assert found.code == 0, found.err
        return next(line for line in found.out.splitlines() if line.startswith("device ")).partition(": ")[2]

    text = SMALL.replace('"here"', '"once"')
    assert source(text) == "measured now"
    assert source(text) == "read from its profile"
    assert source(text.replace("visits = 1", "threads = 2, visits = 1")) == "measured now"
    assert source(text.replace("height = 16\nwidth = 16", "height = 24\nwidth = 24")) == "measured now"
    assert source(text.replace("networks = 10", "networks = 11")) == "measured now"
    assert source(text) == "read from its profile"
    assert len(list(devices.glob("once.*.json"))) == 3, "one more network joins the profile, it makes no other"


def test_a_damaged_profile_is_7_and_not_measured_anew_in_silence(nas, config, devices):
    text = SMALL.replace('"here"', '"damaged"')
    assert nas("check", config(text)).code == 0
    (path,) = devices.glob("damaged.*.json")
    path.write_bytes(path.read_bytes()[:300])
    found = nas("check", config(text))
    assert found.code == 7
    assert f"{path} is no device profile" in found.told
    assert "remove it to measure again" in found.told
    assert path.stat().st_size == 300
    assert nas("device", "show", "damaged").code == 7
    listed = nas("device", "list")
    assert listed.code == 0
    assert "damaged" in listed.out


def test_a_profile_of_another_machine_under_this_ones_name_is_7(nas, config, devices):
    text = SMALL.replace('"here"', '"stranger"')
    assert nas("check", config(text)).code == 0
    (path,) = devices.glob("stranger.*.json")
    record = json.loads(path.read_text())
    record["fingerprint"]["cpu"] = "Another CPU"
    path.write_text(json.dumps(record))
    found = nas("check", config(text))
    assert found.code == 7
    assert "was measured on another device: cpu was 'Another CPU'" in found.told


def test_device_list_and_show_tell_what_was_measured(nas, config):
    assert nas("check", config(SMALL.replace('"here"', '"board.v2"'))).code == 0
    assert "board.v2" in nas("device", "list").out
    shown = nas("device", "show", "board.v2")
    assert shown.code == 0
    assert "10 timed files" in shown.out
    assert "threads: 1" in shown.out


# -- figures for people and for machines


def test_a_network_unlike_anything_timed_is_not_predicted(nas, config, tmp_path):
    stages = ((Conv(width=16, kernel=7, stride=2, activation="relu"),), (Classifier(classes=10),))
    (tmp_path / "a.json").write_text(Architecture((1, 16, 16), stages).to_json())
    found = nas("predict", config(SMALL), "a.json", "--json")
    assert (found.code, found.out) == (7, "")
    assert "the latency of a.json cannot be predicted: no timed network held dense.k7" in found.told


def test_predict_prints_figures_with_unit_and_origin(nas, config, tmp_path):
    space = load_config(config(SMALL)).space
    network = decode(space, sample(space, 1, np.random.default_rng(0))[0])
    (tmp_path / "a.json").write_text(network.to_json())
    found = nas("predict", config(SMALL), "a.json", "--json")
    assert found.code == 0
    figures = json.loads(found.out)["a.json"]
    assert (figures["macs"]["value"], figures["macs"]["unit"]) == (macs(lower(network)), "MAC")
    assert figures["macs"]["origin"] == "counted"
    assert (figures["latency_ms"]["unit"], figures["latency_ms"]["origin"]) == ("ms", "predicted")
    assert figures["latency_ms"]["lower"] <= figures["latency_ms"]["value"] <= figures["latency_ms"]["upper"]
    plain = nas("predict", config(SMALL), "a.json").out
    assert "(predicted)" in plain
    assert "(counted)" in plain


def test_probe_files_and_their_table_can_be_carried_away_and_come_back_as_a_device(nas, config, tmp_path):
    text = SMALL.replace('"here"', '"board"')
    found = nas("device", "probe", config(text), "--out", "probes")
    assert found.code == 0
    assert found.out.startswith("10 files")
    assert len(list((tmp_path / "probes").glob("*.onnx"))) == 10
    rows = (tmp_path / "probes" / "table.csv").read_text().splitlines()
    assert rows[0] == "file,latency_ms,origin"
    filled = [rows[0]]
    for row in rows[1:]:
        name = row.split(",")[0]
        filled.append(f"{name},{(tmp_path / 'probes' / name).stat().st_size / 1e5},tabulated")
    (tmp_path / "board.csv").write_text("\n".join(filled) + "\n")
    board = '[device]\nname = "board"\nprecisions = ["float32"]\nbackend = { type = "table", path = "board.csv" }\n'
    fitted = nas("device", "fit", config(text.replace(HERE.replace('"here"', '"board"'), board)))
    assert fitted.code == 0, fitted.err
    assert "on 10 networks left out of the fit (tabulated)" in fitted.out
