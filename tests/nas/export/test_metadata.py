import json

import onnx
import onnxruntime
import pytest

from nas.export.metadata import RESIZING, Contract, describe, of_file, plan_record, read
from nas.export.preprocessing import InputForm
from nas.task import Preprocessing
from search_spaces.errors import RunError
from search_spaces.precision import QuantizationPlan


def as_texts(record):
    return {key: json.dumps(value) for key, value in record.items()}


@pytest.mark.parametrize("resize", list(RESIZING))
def test_contract_reads_back_as_it_was_written(untrained, task, tmp_path, resize):
    form = InputForm(dtype="float32", layout="nchw", batch=None)
    preprocessing = Preprocessing(
        height=16, width=24, color="bgr", resize=resize, interpolation="box", fill=9, bits=12,
        mean=(1.5, 2.0, 3.0), std=(4.0, 5.5, 6.0),
    )  # fmt: skip
    record = describe(untrained.replace(preprocessing=preprocessing), task, form, decoding=("A rule.",))
    contract = Contract.of(as_texts(record), tmp_path / "model.onnx")
    assert (contract.form, contract.preprocessing, contract.classes) == (form, preprocessing, task.classes)
    assert record["normalization"]["inside"] is False


def test_both_files_say_what_they_are(mobile):
    for file, plan in zip(mobile.exported.files, (None, QuantizationPlan()), strict=True):
        texts = onnxruntime.InferenceSession(str(file.path)).get_modelmeta().custom_metadata_map
        record = read(texts)
        assert record == of_file(mobile.exported.manifest["metadata"], file.precision, plan_record(plan))
        assert record["precision"] == file.precision
        assert onnx.load(file.path).producer_name == "embedded-nas"


def test_classes_stand_in_the_order_of_the_labels(mobile, task):
    assert mobile.exported.manifest["metadata"]["classes"] == list(task.classes)


@pytest.mark.parametrize(
    "texts",
    [{}, {"format": "2"}, {"format": "1"}, {"format": "one"}, {"format": "1", "input": "[]"}],
    ids=["none", "newer", "incomplete", "no JSON", "wrong type"],
)
def test_other_metadata_are_refused(texts, tmp_path):
    with pytest.raises(RunError, match=r"model.onnx holds no metadata of format 1 \(.+\); export the network again"):
        Contract.of(texts, tmp_path / "model.onnx")
