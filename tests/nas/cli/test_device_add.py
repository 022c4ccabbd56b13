"""`nas device add`, `probe`, `show` and `list` on the command line."""

import json
import re
import shutil

import onnx
import pytest
from typer.testing import CliRunner

from nas.cli.main import app
from search_spaces.errors import NasError


@pytest.fixture
def nas(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "devices"))
    (tmp_path / "devices").mkdir()

    def run(*arguments):
        result = CliRunner().invoke(app, ["device", *map(str, arguments)])
        if isinstance(result.exception, NasError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_files_carried_to_a_board_and_back_make_a_device(nas, tmp_path):
    told = nas("probe", "--out", tmp_path / "set", "--networks", 10)
    assert "20 files, table.csv and timing_script.py written" in told
    assert "python3 timing_script.py fill ." in told
    table = tmp_path / "set" / "table.csv"
    lines = table.read_text().splitlines()
    filled = [re.sub(",,", f",{0.1 + 0.01 * number},", line) for number, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0], *filled]) + "\n")
    record = json.loads(nas("add", "far", "--table", table, "--json"))
    assert record["device"] == "far"
    assert set(record["accuracy"]) == {"float32", "int8"}
    assert record["accuracy"]["int8"]["networks"] == 10
    assert len(record["next"]) == 10
    shown = nas("show", "far")
    assert "20 timed files" in shown
    assert "networks left out of the fit" in shown
    assert "far" in nas("list")


def test_a_program_that_prints_milliseconds_is_a_device(nas, tmp_path):
    (tmp_path / "bench.py").write_text("import os, sys\nprint('took', os.path.getsize(sys.argv[1]) / 1e5, 'ms')\n")
    import sys

    command = f"{sys.executable} {tmp_path / 'bench.py'} {{file}}"
    told = nas("add", "prog", "--command", command, "--pattern", "took ([0-9.]+) ms", "--networks", 10)
    assert "prog:" in told
    assert "U8S8, for a device that tells no instruction set" in told
    assert "networks to time next" in told


def test_networks_that_a_device_refuses_are_told_and_kept(nas, tmp_path):
    bench = tmp_path / "bench.sh"
    bench.write_text(
        'n=$(cat "$0.refused" 2> /dev/null | wc -l)\n'
        'if grep -qxF "$1" "$0.refused" 2> /dev/null; then echo "out of memory"; exit 1; fi\n'
        'if test -e "$0.seen" && test $n -lt 2; then echo "$1" >> "$0.refused"; echo "out of memory"; exit 1; fi\n'
        'touch "$0.seen"; echo took $(wc -c < "$1") us\n'
    )
    asked = ("add", "small", "--command", f"sh {bench} {{file}}", "--pattern", "took ([0-9]+) us", "--unit", "us")
    told = nas(*asked, "--networks", 12)
    refused = (tmp_path / "bench.sh.refused").read_text().splitlines()
    assert len(refused) == 2
    assert "22 files timed now" in told
    sentence = r"2 of 24 files gave no timing \(2 out of memory\), the first: \S+\.onnx needs more memory than .*`ram`"
    assert re.search(sentence, told)
    assert re.search(sentence, nas("show", "small"))
    record = json.loads(nas(*asked, "--networks", 12, "--json"))
    assert record["timed"] == 22
    assert {f"{item['key']}.{item['precision']}.onnx" for item in record["refused"]} == {
        path.rpartition("/")[2] for path in refused
    }
    assert {item["kind"] for item in record["refused"]} == {"out_of_memory"}
    assert not {item["key"] for item in record["refused"]} & {item["key"] for item in record["next"]}


def test_flags_that_contradict_each_other_are_config_errors(nas, tmp_path):
    with pytest.raises(NasError, match="name two devices") as error:
        nas("add", "x", "--ssh", "pi", "--command", "run {file}")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--networks", 100), ("--blocks", 0), ("--model", "additive"), ("--threads", 1), ("--threads", 4)],
)
def test_a_flag_that_the_run_file_says_is_refused_beside_it_whatever_its_value(nas, tmp_path, flag, value):
    with pytest.raises(NasError, match=f"{flag} is given beside --config: .* stand in the run file") as error:
        nas("add", "x", "--config", tmp_path / "run.toml", flag, value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("flag", ["--networks", "--opset", "--ir-version"])
def test_a_flag_of_a_probe_set_is_refused_beside_a_run_file(nas, tmp_path, flag):
    with pytest.raises(NasError, match=f"{flag} is given beside a run file") as error:
        nas("probe", tmp_path / "run.toml", "--out", tmp_path / "set", flag, 13)
    assert error.value.exit_code == 2


def test_probe_files_are_as_old_as_the_runtime_of_the_board(nas, tmp_path):
    nas("probe", "--out", tmp_path / "set", "--networks", 10, "--opset", 13, "--ir-version", 7)
    models = [onnx.load(path) for path in (tmp_path / "set").glob("*.onnx")]
    assert len(models) == 20
    assert {(model.opset_import[0].version, model.ir_version) for model in models} == {(13, 7)}


def test_file_versions_that_no_probe_can_have_are_a_sentence(nas, tmp_path):
    with pytest.raises(NasError, match="--opset 12 with --ir-version 8: opset must lie between 13 and") as error:
        nas("probe", "--out", tmp_path / "set", "--opset", 12)
    assert error.value.exit_code == 2
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client here")
def test_a_board_that_does_not_answer_is_a_device_error(nas):
    with pytest.raises(NasError, match=r"nowhere\.invalid cannot be reached by ssh") as error:
        nas("add", "x", "--ssh", "pi@nowhere.invalid")
    assert error.value.exit_code == 7
