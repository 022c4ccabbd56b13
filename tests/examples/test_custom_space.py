"""The space of thirty lines: its size, its contract, and the whole of `nas run` on it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPACE, RUN = ROOT / "examples" / "custom_space.py", ROOT / "examples" / "custom_space.toml"


def nas(*arguments):
    """Run the program: in this process the plug-in would stay registered for all other tests."""
    return subprocess.run([sys.executable, "-m", "nas", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def test_the_file_has_at_most_thirty_lines():
    assert len(SPACE.read_text().splitlines()) <= 30


def test_it_conforms_by_the_command():
    done = nas("check", "--space", "dilated", "--plugin", SPACE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("space dilated passes (100 networks decoded, 5 built)")
    assert "pass  written ONNX equals torch" in done.stdout


def test_a_space_that_breaks_its_contract_ends_with_its_sample(tmp_path):
    plugin = tmp_path / "partial_space.py"
    plugin.write_text(
        SPACE.read_text()
        .replace('"dilated"', '"partial"')
        .replace(
            "    @property\n    def chain",
            "    def decode(self, values):\n        raise KeyError(3)\n\n    @property\n    def chain",
        )
    )
    done = nas("check", "--space", "partial", "--plugin", plugin)
    assert done.returncode == 2
    assert "FAIL  decode is total: decode raises: KeyError: 3" in done.stdout
    sample = next(line for line in done.stdout.splitlines() if line.startswith("  sample "))
    assert set(json.loads(sample.removeprefix("  sample "))) >= {"width1", "holes3"}
    assert "nas: the space 'partial' breaks its contract: decode is total" in done.stderr


def test_unknown_spaces_and_missing_names_are_told():
    done = nas("check", "--space", "dilatet", "--plugin", SPACE)
    assert done.returncode == 2
    assert "did you mean 'dilated'" in done.stderr
    assert "one of both" in nas("check").stderr


@pytest.mark.slow
def test_the_whole_of_nas_run_works_on_it(tmp_path):
    done = nas("run", RUN, "--plugin", SPACE, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    budget = tomllib.loads(RUN.read_text())["budget"]
    winner = next(known for known in results["contenders"] if known["name"] == results["winner"])
    figures = winner["files"][0]["figures"]
    assert figures["test_metric"]["value"] > 0.85  # ten classes; a linear model reaches about 0.9
    assert figures["macs"]["value"] <= budget["macs"]
    assert all('"dilated"' in known["architecture"] for known in results["contenders"] if known["family"] == "search")
