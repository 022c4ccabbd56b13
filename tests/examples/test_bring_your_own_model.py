"""A plain torch network through the stages that can take it, at tiny size."""

import importlib.util
from pathlib import Path

import onnx
import pytest

FILE = Path(__file__).parents[2] / "examples" / "bring_your_own_model.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("bring_your_own_model", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_priced_refused_by_prune_and_delivered(example, tmp_path, capsys):
    example.main(["--epochs", "1", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    weights = sum(parameter.numel() for parameter in example.Plain().parameters())
    assert f"{weights:,} parameters" in told
    assert "Prune: left out: prune needs a network of blocks, but this one is a plain module" in told
    assert "Distill: done" in told
    assert "Quantize: done" in told
    for name in ("model.onnx", "model.int8.onnx"):
        onnx.checker.check_model(str(tmp_path / "export" / name), full_check=True)
        assert f"{name}: " in told
