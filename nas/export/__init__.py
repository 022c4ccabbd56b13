"""From a candidate to files that are products: ONNX in float32 and 8 bits, checked, described, ready to run alone.

Read first `onnx.py` (the exporter), then `dynamo.py` and `rewrites.py` (the float32 file), `int8.py` (the 8-bit file),
`preprocessing.py` and `metadata.py` (what a file takes and says of itself), `parity.py` and `audit.py` (how it is
checked). `running.py` runs a file, `verification.py` checks a folder again, `model_card.py` tells people about it,
`trial.py` compares without writing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.export.audit import Audit
    from nas.export.manifest import counted, read_exported
    from nas.export.model_card import add_results
    from nas.export.onnx import OnnxExporter
    from nas.export.parity import compare, require_parity
    from nas.export.preprocessing import InputForm
    from nas.export.running import run_file
    from nas.export.trial import Trial
    from nas.export.verification import Check, require_verified, verify

_HOME = {
    "Audit": "nas.export.audit",
    "Check": "nas.export.verification",
    "InputForm": "nas.export.preprocessing",
    "OnnxExporter": "nas.export.onnx",
    "Trial": "nas.export.trial",
    "add_results": "nas.export.model_card",
    "compare": "nas.export.parity",
    "counted": "nas.export.manifest",
    "read_exported": "nas.export.manifest",
    "require_parity": "nas.export.parity",
    "require_verified": "nas.export.verification",
    "run_file": "nas.export.running",
    "verify": "nas.export.verification",
}

__all__ = [
    "Audit",
    "Check",
    "InputForm",
    "OnnxExporter",
    "Trial",
    "add_results",
    "compare",
    "counted",
    "read_exported",
    "require_parity",
    "require_verified",
    "run_file",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
