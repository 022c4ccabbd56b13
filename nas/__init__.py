"""Finds, compresses and exports small vision networks that meet an embedded device's budget.

Read in this order: `task` (images, labels, splits), `candidate` and `protocols` (what flows, and what may be plugged
in), `config` (a run in one file), `search`, `train`, `compress`, `gate`, `export`, `report`, and `pipeline`, the only
place that composes them (`nas.pipeline.main.run` is the whole road). `cli` is the command `nas`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.candidate import Candidate, Exported, StageRecord
    from nas.config import RunConfig, load_config
    from nas.gate import Gate, judge
    from nas.protocols import EVALUATORS, EXPORTERS, STAGES, Evaluator, Exporter, Stage
    from nas.results import RunResults
    from nas.run import EventLog, RunDirectory
    from nas.task import Preprocessing, Split, Task

_HOME = {
    "Candidate": "candidate", "EVALUATORS": "protocols", "EXPORTERS": "protocols", "Evaluator": "protocols",
    "EventLog": "run", "Exported": "candidate", "Exporter": "protocols", "Gate": "gate", "Preprocessing": "task",
    "RunConfig": "config", "RunDirectory": "run", "RunResults": "results", "STAGES": "protocols", "Split": "task",
    "Stage": "protocols", "StageRecord": "candidate", "Task": "task", "judge": "gate",
    "load_config": "config",
}  # fmt: skip

__all__ = [
    "Candidate", "EVALUATORS", "EXPORTERS", "Evaluator", "EventLog", "Exported", "Exporter", "Gate", "Preprocessing",
    "RunConfig", "RunDirectory", "RunResults", "STAGES", "Split", "Stage", "StageRecord", "Task", "judge",
    "load_config",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
