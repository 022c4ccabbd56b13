"""The README's run file and commands are real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.config import load_config

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_its_run_file_loads(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    path = tmp_path / "run.toml"
    path.write_text(text)
    config = load_config(path)
    assert config.budget.latency_ms == 2.0
    assert [type(gated.stage).__name__ for gated in config.stages] == ["Prune", "Distill", "Quantize"]


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:bin/|`)nas ([a-z]+)", README))))
def test_every_command_it_names_is_there(command):
    done = subprocess.run([sys.executable, "-m", "nas", command, "--help"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
