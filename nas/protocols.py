"""The seams of the top package: what evaluators, stages and exporters must offer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.candidate import Candidate, Exported
from nas.task import Task
from search_spaces.architecture import Architecture
from search_spaces.measurement import Measurement
from search_spaces.registry import Registry
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from nas.train.options import TrainOptions

Progress = Callable[[str, float], None]
"""Called with a label and the share done, 0 to 1; the command line draws it, tests and libraries pass `quiet`."""


def quiet(label: str, share: float) -> None:
    """Report progress to nobody."""


class Evaluator(Protocol):
    """Says something about an architecture; cheap evaluators run first.

    `cost` is 0 for counts, 1 for proxies, 2 for seconds and 3 for minutes of training.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the measurements it gives."""
        ...

    @property
    def cost(self) -> int:
        """How dear it is, 0 to 3."""
        ...

    def evaluate(self, architecture: Architecture, task: Task, budget: float) -> Mapping[str, Measurement]:
        """Return its measurements; `budget` is the share of a full evaluation to spend, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a stage may use besides the candidate and the task.

    Attributes:
        train: How networks are trained in this run.
        seed: Of this stage; derived from the run's seed.
        folder: Where it may keep checkpoints, so that it continues after an interruption.
        predict_ms: Predicted latency of a workload on the run's device, at its precision.
        alignment: Multiple of channels below which narrowing buys no time on the device.
        teacher: Larger trained network, where the run has one.
        progress: Told how far the stage is.
    """

    train: "TrainOptions"
    seed: int
    folder: Path
    predict_ms: Callable[[Workload], float]
    alignment: int = 8
    teacher: Candidate | None = None
    progress: Progress = field(default=quiet)


class Stage(Protocol):
    """One compression stage: a frozen dataclass of options."""

    def apply(self, candidate: Candidate, task: Task, context: StageContext) -> Candidate:
        """Return a new candidate; the one given stays as it was, module included."""
        ...


class Exporter(Protocol):
    """Writes a candidate as files and checks them by running them."""

    def export(self, candidate: Candidate, task: Task, folder: Path) -> Exported:
        """Write the files into `folder` and compare them with the network on validation images."""
        ...


EVALUATORS: Registry[Evaluator] = Registry("evaluator", group="embedded_nas.evaluators")
STAGES: Registry[Stage] = Registry(
    "stage",
    group="embedded_nas.stages",
    builtin=("nas.compress.prune", "nas.compress.distill", "nas.compress.quantize"),
)
EXPORTERS: Registry[Exporter] = Registry("exporter", group="embedded_nas.exporters", builtin=("nas.export.onnx",))
