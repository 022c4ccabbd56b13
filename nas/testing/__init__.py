"""Contracts: what every plug-in of a kind must do, as test classes to inherit.

In a plug-in's own tests one fixture is enough:

    from nas.testing import SpaceContract

    class TestMySpace(SpaceContract):
        @pytest.fixture
        def space(self):
            return MySpace()

Likewise `BlockContract` (fixture `example`), `LatencyModelContract` (`model`), `StageContract` (`stage`),
`ExporterContract` (`exporter`) and `BackendContract` (`backend`). Every check raises ContractError, an AssertionError,
with one sentence about what was found and, where there is one, the JSON of what showed it. One file a kind;
`options.py` holds what every plug-in owes, `modules.py` what networks owe, `small_devices.py` and `small_tasks.py` what
the checks run on.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.testing.backends import BackendContract
    from nas.testing.blocks import BlockContract, check_block
    from nas.testing.contract import ContractError
    from nas.testing.exporters import ExporterContract
    from nas.testing.latency_models import LatencyModelContract
    from nas.testing.modules import ONNX_TOLERANCE, check_gradients
    from nas.testing.options import check_options
    from nas.testing.spaces import (
        SPACE_CHECKS,
        Conformance,
        SpaceContract,
        architectures_survive_json,
        blocks_build_alike,
        blocks_lower,
        check_space,
        choices_are_fixed,
        costs_are_finite,
        decode_is_total,
        gradients_reach_every_parameter,
        keys_are_stable,
        modules_match_their_lowering,
        mutation_stays_inside,
        onnx_equals_torch,
    )
    from nas.testing.stages import StageContract

_HOME = {
    "BackendContract": "backends",
    "BlockContract": "blocks",
    "Conformance": "spaces",
    "ContractError": "contract",
    "ExporterContract": "exporters",
    "LatencyModelContract": "latency_models",
    "ONNX_TOLERANCE": "modules",
    "SPACE_CHECKS": "spaces",
    "SpaceContract": "spaces",
    "StageContract": "stages",
    "architectures_survive_json": "spaces",
    "blocks_build_alike": "spaces",
    "blocks_lower": "spaces",
    "check_block": "blocks",
    "check_gradients": "modules",
    "check_options": "options",
    "check_space": "spaces",
    "choices_are_fixed": "spaces",
    "costs_are_finite": "spaces",
    "decode_is_total": "spaces",
    "gradients_reach_every_parameter": "spaces",
    "keys_are_stable": "spaces",
    "modules_match_their_lowering": "spaces",
    "mutation_stays_inside": "spaces",
    "onnx_equals_torch": "spaces",
}

__all__ = [
    "BackendContract",
    "BlockContract",
    "Conformance",
    "ContractError",
    "ExporterContract",
    "LatencyModelContract",
    "ONNX_TOLERANCE",
    "SPACE_CHECKS",
    "SpaceContract",
    "StageContract",
    "architectures_survive_json",
    "blocks_build_alike",
    "blocks_lower",
    "check_block",
    "check_gradients",
    "check_options",
    "check_space",
    "choices_are_fixed",
    "costs_are_finite",
    "decode_is_total",
    "gradients_reach_every_parameter",
    "keys_are_stable",
    "modules_match_their_lowering",
    "mutation_stays_inside",
    "onnx_equals_torch",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
