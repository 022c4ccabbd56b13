"""A run on a device that refuses files the run delivers."""

import json
import re

import pytest

from nas.config import load_config
from nas.pipeline.main import run
from search_spaces.errors import MeasurementError
from tests.nas.pipeline.small import SMALL


@pytest.fixture
def started(tmp_path):
    """Return a function that runs the small run on a program that lacks an operator of some files."""

    def start(refuses):
        program = tmp_path / "bench.sh"
        program.write_text(
            f'case "$1" in {refuses}) echo "NOT_IMPLEMENTED : QLinearConv"; exit 1;; esac\n'
            'echo took $(wc -c < "$1") us\n'
        )
        backend = {"command": ["sh", str(program), "{file}"], "pattern": "took ([0-9]+) us", "unit": "us", "visits": 1}
        fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in backend.items())
        text = re.sub("backend = .*", f'backend = {{ type = "command", {fields} }}', SMALL.replace("LATENCY", "5000.0"))
        text = re.sub(r"\[\[stages\]\]\ntype = \"(prune|distill)\"\n(.+\n)+\n", "", text)
        (tmp_path / "run.toml").write_text(text.replace('["shufflenet_v2"]', "[]"))
        return run(load_config(tmp_path / "run.toml"), tmp_path / "run", store=tmp_path / "devices")

    return start


def test_a_stage_whose_file_the_device_refuses_is_reverted_and_the_file_before_it_ships(started, tmp_path):
    results = started("*/model.int8.onnx")
    winner = results.contender(results.winner)
    (stage,) = winner.stages
    assert (stage.stage, stage.verdict) == ("quantize", "reverted")
    assert re.match(
        r"the device gave the file no timing \(unsupported\): .* lacks what model\.int8\.onnx", stage.reason
    )
    assert "latency_ms" not in stage.after
    assert [file.precision for file in winner.files] == ["float32"]
    assert winner.files[0].figures["latency_ms"].origin == "measured"


@pytest.mark.slow
def test_a_trained_network_that_the_device_refuses_ends_the_run_and_keeps_what_was_done(started, tmp_path):
    with pytest.raises(MeasurementError, match=r"^search 1 cannot be timed: .* lacks what model\.onnx needs") as caught:
        started("*/model.onnx")
    assert caught.value.exit_code == 7
    assert list((tmp_path / "run").rglob("*-trained"))
    results = started("none")
    assert results.winner
    assert json.loads(next((tmp_path / "run").rglob("record.json")).read_text())["verdict"] == "kept"
