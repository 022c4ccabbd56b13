"""Files run on the device itself: agreement and accuracy go into parity.json, and too little of it ends a run."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest

from latency_models.backends.local import Local
from nas.candidate import Candidate
from nas.export import read_exported
from nas.export.onnx import OnnxExporter
from nas.pipeline.on_device import check_on_device, require_on_device
from search_spaces.build import build
from search_spaces.errors import ParityFailed
from search_spaces.precision import QuantizationPlan
from tests.nas.export.networks import SMALL, colored_digits


@dataclass(frozen=True)
class Board:
    """Another machine that answers as onnxruntime here does, but for the first `wrong` images."""

    wrong: int = 0
    runs_files: bool = True
    live: ClassVar[bool] = True

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def measure(self, artefacts, reference, *, progress=lambda _share: None):
        raise AssertionError("nothing is timed here")

    def outputs(self, artefact, inputs, *, batch):
        session = onnxruntime.InferenceSession(artefact, providers=["CPUExecutionProvider"])
        parts = [session.run(None, {"image": inputs[i : i + batch]})[0] for i in range(0, len(inputs), batch)]
        found = np.concatenate(parts)
        found[: self.wrong] = np.roll(found[: self.wrong], 1, axis=1)
        return found


@pytest.fixture(scope="module")
def task():
    return colored_digits()


@pytest.fixture(scope="module")
def delivered(task, tmp_path_factory):
    candidate = Candidate(
        architecture=SMALL,
        module=build(SMALL, seed=1).eval(),
        preprocessing=task.preprocessing,
        quantization=QuantizationPlan(),
    )
    return OnnxExporter().export(candidate, task, tmp_path_factory.mktemp("delivered")).folder


@pytest.fixture
def folder(delivered, tmp_path):
    return shutil.copytree(delivered, tmp_path / "delivered")


def test_agreement_and_accuracy_of_256_images_stand_in_parity_json(folder, task):
    check_on_device(folder, Board(), task.validation, device="pi")
    record = json.loads((folder / "parity.json").read_text())
    assert set(record) == {"model.onnx", "model.int8.onnx"}
    for entry in record.values():
        there = entry["on_device"]
        assert (there["device"], there["images"], there["agreement"]) == ("pi", 256, 1.0)
        assert there["accuracy"] == there["accuracy_here"]
        assert there["max_abs_difference"] == 0.0
    assert (
        "on pi the file names the same class as here on 100.00% of 256 images"
        in read_exported(folder).files[0].parity.reason
    )
    require_on_device(folder)


def test_a_board_that_computes_something_else_fails_parity_with_exit_code_5(folder, task):
    check_on_device(folder, Board(wrong=40), task.validation, device="pi")
    found = read_exported(folder).files[0].parity
    assert found.on_device is not None
    assert found.on_device.agreement < 0.99
    assert not found.passed
    with pytest.raises(
        ParityFailed, match=r"model\.onnx: .*on pi the file names the same class as here on 8\d"
    ) as error:
        require_on_device(folder)
    assert error.value.exit_code == 5


def test_a_file_is_run_on_the_device_once(folder, task):
    check_on_device(folder, Board(), task.validation, device="pi")
    before = (folder / "parity.json").read_text()
    check_on_device(folder, Board(wrong=256), task.validation, device="pi")
    assert (folder / "parity.json").read_text() == before


@pytest.mark.parametrize("backend", [Local(), Board(runs_files=False)], ids=["this machine", "prints latencies only"])
def test_nothing_is_compared_where_the_device_is_here_or_takes_no_input(folder, task, backend):
    before = (folder / "parity.json").read_text()
    check_on_device(folder, backend, task.validation, device="here")
    require_on_device(folder)
    assert (folder / "parity.json").read_text() == before
