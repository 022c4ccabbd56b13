"""`nas device` where something is wrong: exit codes, sentences, and what is still shown."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from latency_models.probe import LEAST
from latency_models.profile import Profile
from nas.cli import device as device_commands
from nas.cli import main as program
from nas.config import load_config
from nas.pipeline.adding import Named, add_named
from search_spaces.architecture import BLOCKS


@dataclass(frozen=True)
class Said:
    """What the program did."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything printed, without the frames and line breaks of a box."""
        return " ".join(re.sub("[│╭╮╰╯─┃]", " ", self.out + self.err).split())


Nas = Callable[..., Said]


@pytest.fixture
def nas(tmp_path, monkeypatch, capsys) -> Nas:
    (tmp_path / "devices").mkdir()
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["nas", "device", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            program.main()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def program_of_a_board(tmp_path_factory) -> str:
    """A program that prints a bare number, the size of its file as microseconds."""
    bench = tmp_path_factory.mktemp("board") / "bench.sh"
    bench.write_text('wc -c < "$1"\n')
    return f"sh {bench} {{file}}"


# -- flags


def test_the_least_number_of_networks_in_the_help_is_that_of_a_probe():
    assert device_commands.LEAST == LEAST


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("add", "x", "--more", -1), "--more"),
        (("add", "x", "--blocks", -1), "--blocks"),
        (("add", "x", "--threads", 0), "--threads"),
        (("add", "x", "--networks", LEAST - 1), f"--networks.*[= ]{LEAST}( |$|\\.)"),
        (("probe", "--out", "set", "--networks", LEAST - 1), f"--networks.*[= ]{LEAST}( |$|\\.)"),
    ],
    ids=["more", "blocks", "threads", "networks of add", "networks of probe"],
)
def test_a_number_that_is_too_small_is_a_usage_error_that_names_its_option(nas, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    said = nas(*arguments)
    assert said.code == 2
    assert re.search(rf"Invalid value for '?{told}", said.words)
    assert not list((tmp_path / "devices").iterdir())
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("command", ["add", "probe"])
def test_the_help_says_how_few_networks_there_may_be(nas, command):
    assert f"{LEAST} at least" in nas(command, "--help").words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a/b",), "the name of a device names a file"),
        (("x", "--command", "run {file}", "--pattern", "("), "pattern '(' is no regular expression"),
        (("x", "--command", "run {file}", "--unit", "hours"), "unit must be one of"),
        (("x", "--command", "run"), "command must have '{file}'"),
        (("x", "--command", "run 'a {file}"), "is no line of words: No closing quotation"),
        (("x", "--ssh", "-oProxyCommand=x"), "host must be user@address"),
    ],
    ids=["name", "pattern", "unit", "no file", "quotes", "host"],
)
def test_a_flag_with_a_value_that_cannot_be_is_a_usage_error(nas, arguments, sentence):
    said = nas("add", *arguments)
    assert said.code == 2
    assert said.err.startswith("nas: ")
    assert sentence in said.err


# -- a program that prints a number


def test_a_program_that_prints_a_bare_number_needs_no_pattern(nas, program_of_a_board):
    said = nas("add", "prog", "--command", program_of_a_board, "--unit", "us", "--networks", 10, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["timed"] == 20


def test_what_is_timed_now_is_told_apart_from_what_was_known(nas, program_of_a_board):
    asked = ("add", "prog", "--command", program_of_a_board, "--unit", "us", "--networks", 10)
    assert "20 files timed now, " in nas(*asked).out
    assert "20 files read from what was measured before, 4 files timed now, " in nas(*asked, "--more", 2).out
    assert "24 files read from what was measured before, " in nas(*asked).out


# -- probe sets


def test_a_filled_table_is_not_emptied_by_another_probe_set(nas, tmp_path):
    assert nas("probe", "--out", tmp_path / "set", "--networks", 10).code == 0
    table = tmp_path / "set" / "table.csv"
    filled = table.read_text().replace(",,", ",0.5,", 2)
    table.write_text(filled)
    said = nas("probe", "--out", tmp_path / "set", "--networks", 11)
    assert said.code == 2
    assert "holds 2 rows that are filled in" in said.err
    assert f"`nas device add NAME --table {table}`" in said.err
    assert table.read_text() == filled


# -- profiles


@pytest.fixture(scope="module")
def measured(tmp_path_factory, program_of_a_board) -> Path:
    """A healthy profile of the device `here`."""
    asked = Named(name="here", command=program_of_a_board, unit="us", networks=10)
    return add_named(asked, store=tmp_path_factory.mktemp("store")).added.path


@pytest.fixture
def profiles(tmp_path, nas, measured):
    """The healthy profile beside one whose block no plug-in has, and a damaged one."""
    healthy = Path(shutil.copy(measured, tmp_path / "devices"))
    text = healthy.read_text().replace('"type":"inverted_residual"', '"type":"absent_block"')
    assert "absent_block" in text
    (healthy.parent / "here.0.a.json").write_text(text)
    (healthy.parent / "here.0.b.json").write_text("{")
    return healthy


def test_a_profile_that_lacks_a_plug_in_is_not_called_damaged(nas, profiles):
    said = nas("list")
    lines = {line.split()[-2]: line for line in said.out.splitlines() if "here." in line}
    assert said.code == 0
    absent = next(line for line in lines.values() if "here.0.a.json" in line.rsplit("│", 2)[1])
    assert "needs a plug-in" in absent
    assert "block 'absent_block'; give --plugin FILE" in absent
    assert "damaged" not in absent
    assert sum("damaged" in line for line in lines.values()) == 1


def test_healthy_profiles_of_a_device_are_shown_beside_others(nas, profiles):
    said = nas("show", "here")
    assert said.code == 0
    assert f"{profiles.name}: 20 timed files" in said.out
    others = [line for line in said.out.splitlines() if line.startswith("not shown: ")]
    assert len(others) == 2
    assert "here.0.a.json needs a plug-in that is not loaded: block 'absent_block'; give --plugin FILE" in others[0]
    assert "here.0.b.json is no device profile" in others[1]


def test_a_device_of_which_no_profile_can_be_read_is_an_error(nas, profiles):
    profiles.unlink()
    said = nas("show", "here")
    assert said.code == 2
    assert "give --plugin FILE" in said.err


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in with the absent block, forgotten after the test."""
    for name in ("_members", "_names"):
        monkeypatch.setattr(BLOCKS, name, dict(getattr(BLOCKS, name)))
    file = tmp_path / "absent_plugin_for_tests.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from search_spaces.architecture import BLOCKS\n"
        "kind = BLOCKS.get('inverted_residual')\n"
        "@BLOCKS.register('absent_block')\n"
        "@dataclass(frozen=True)\n"
        "class Absent(kind): ...\n"
    )
    yield file
    sys.modules.pop(file.stem, None)


def test_a_plug_in_that_is_given_lets_its_profiles_be_listed_and_shown(nas, profiles, plugin):
    assert "here.0.a.json: 20 timed files" in nas("show", "here", "--plugin", plugin).out
    assert "absent_block" not in nas("list", "--plugin", plugin).out


def test_the_file_of_a_profile_is_shown_wherever_it_lies(nas, profiles, tmp_path):
    profile = replace(Profile.load(profiles), device="elsewhere")
    path = tmp_path / "carried.json"
    path.write_text(profile.to_json())
    assert "carried.json: 20 timed files" in nas("show", path).out
    assert nas("show", profiles.name).code == 0


def test_a_device_with_several_profiles_is_proposed_once(nas, profiles):
    said = nas("show", "her")
    assert said.code == 7
    assert said.err.count("'here'") == 1


def test_a_run_file_starts_from_a_device_whose_newest_profile_lacks_a_plug_in(nas, profiles, tmp_path):
    (tmp_path / "devices" / "here.0.b.json").unlink()
    os.utime(tmp_path / "devices" / "here.0.a.json", (4e9, 4e9))
    run = tmp_path / "run.toml"
    run.write_text('device = "here"\n[task]\ntype = "digits"\n[data]\nheight = 16\nwidth = 16\ncolor = "grey"\n')
    assert load_config(run).device.name == "here"
