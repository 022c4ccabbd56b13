"""What holds for every registered exporter."""

import pytest

from nas.export.onnx import OnnxExporter
from nas.protocols import EXPORTERS
from nas.testing import ExporterContract
from tests.contracts.registered import example

EXAMPLES = {
    "onnx": (OnnxExporter(), OnnxExporter(input="float32", layout="nchw", dynamic_batch=True)),
}
CASES = [
    pytest.param((name, number), id=f"{name}-{number}")
    for name in EXPORTERS.names()
    for number in range(len(EXAMPLES.get(name, (None,))))
]


class TestRegisteredExporters(ExporterContract):
    @pytest.fixture(params=CASES)
    def exporter(self, request):
        name, number = request.param
        found = example(EXAMPLES, name, EXPORTERS.kind, "tests/contracts/test_exporters.py")[number]
        assert EXPORTERS.name_of(type(found)) == name
        return found
