"""What holds for every registered compression stage."""

import pytest

from nas.compress.distill import Distill
from nas.compress.prune import Prune
from nas.compress.quantize import Quantize
from nas.protocols import STAGES
from nas.testing import StageContract
from tests.contracts.registered import example

EXAMPLES = {
    "distill": Distill(epochs=1, keep="distilled"),
    "prune": Prune(target=0.7, steps=2, step_epochs=1, epochs=1, images=32),
    "quantize": Quantize(most_float=1, agreement=1.0),
}


class TestRegisteredStages(StageContract):
    @pytest.fixture(params=STAGES.names())
    def stage(self, request):
        found = example(EXAMPLES, request.param, STAGES.kind, "tests/contracts/test_stages.py")
        assert STAGES.name_of(type(found)) == request.param
        return found
