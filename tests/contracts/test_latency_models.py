"""What holds for every registered latency model."""

import pytest

from latency_models.auto import Auto
from latency_models.prediction import LATENCY_MODELS
from nas.testing import LatencyModelContract
from tests.contracts.registered import example

EXAMPLES = {
    "additive": LATENCY_MODELS.get("additive")(),
    "auto": Auto(models=("ridge_compact", "lookup"), folds=2),
    "gp": LATENCY_MODELS.get("gp")(),
    "lookup": LATENCY_MODELS.get("lookup")(),
    "ridge_compact": LATENCY_MODELS.get("ridge_compact")(),
    "roofline": LATENCY_MODELS.get("roofline")(),
    "transfer": LATENCY_MODELS.get("transfer")(),
}


class TestRegisteredLatencyModels(LatencyModelContract):
    @pytest.fixture(params=LATENCY_MODELS.names())
    def model(self, request):
        found = example(EXAMPLES, request.param, LATENCY_MODELS.kind, "tests/contracts/test_latency_models.py")
        assert LATENCY_MODELS.name_of(type(found)) == request.param
        return found
