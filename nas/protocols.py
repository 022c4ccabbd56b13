"""The seams of the top package: what evaluators, stages and exporters must offer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.candidate import Candidate, Exported, Parity
from nas.task import Preprocessing, Task
from search_spaces.architecture import Architecture
from search_spaces.measurement import Measurement
from search_spaces.precision import QuantizationPlan
from search_spaces.registry import Registry
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from latency_models.graph import GraphInput
    from nas.train.options import TrainOptions

Progress = Callable[[str, float], None]
"""Called with a label and the share done, 0 to 1; the command line draws it, tests and libraries pass `quiet`."""


def quiet(label: str, share: float) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationContext:
    """What an evaluator may use besides the architecture and the task.

    Attributes:
        train: How networks are trained; its `epochs` are those of the last rung.
        until_epoch: Epoch to train to: all of `train.epochs`, or fewer on a lower rung.
        seed: Of this architecture; derived from the run's seed.
        folder: Where checkpoints of this architecture are kept between rungs.
        should_stop: Asked now and then; work that has not finished is then dropped.
    """

    train: "TrainOptions"
    until_epoch: int
    seed: int
    folder: Path
    should_stop: Callable[[], bool] = field(default=lambda: False)


class Evaluator(Protocol):
    """Says something about an architecture; cheap evaluators run first.

    `cost` is 0 for counts, 1 for proxies, 2 for seconds and 3 for minutes of training.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the measurements it gives; the search maximizes the first."""
        ...

    @property
    def cost(self) -> int:
        """How dear it is, 0 to 3."""
        ...

    def evaluate(self, architecture: Architecture, task: Task, context: EvaluationContext) -> Mapping[str, Measurement]:
        """Return its measurements."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a stage may use besides the candidate and the task.

    Attributes:
        train: How networks are trained in this run.
        seed: Of this stage; derived from the run's seed.
        folder: Where it may keep checkpoints, so that it continues after an interruption.
        predict_ms: Predicted latency of a workload on the run's device, at its precision; on a device without
            timing its millions of MACs.
        timed: Whether `predict_ms` predicts time.
        alignment: Multiple of channels below which narrowing buys no time on the device.
        teacher: Larger trained network, where the run has one.
        ships: How the delivered file will be quantized where a later stage does that; None for as the candidate
            is. A stage that is driven by latency asks for that file's.
        quantization: The 8-bit scheme of the run's device.
        compare: Compares the file that a candidate would be exported to with its network, on validation images;
            None where nothing can be exported yet.
        progress: Told how far the stage is.
    """

    train: "TrainOptions"
    seed: int
    folder: Path
    predict_ms: Callable[[Workload], float]
    timed: bool = True
    alignment: int = 8
    teacher: Candidate | None = None
    ships: QuantizationPlan | None = None
    quantization: QuantizationPlan = field(default_factory=QuantizationPlan)
    compare: Callable[[Candidate], Parity] | None = None
    progress: Progress = field(default=quiet)


class Stage(Protocol):
    """One compression stage: a frozen dataclass of options.

    A stage whose class says `buys_time: ClassVar[bool] = True` is kept only where the file it leads to is faster.
    """

    def apply(self, candidate: Candidate, task: Task, context: StageContext) -> Candidate:
        """Return a new candidate; the one given stays as it was, module included.

        The result takes the same images (`preprocessing`) and gives as many logits. Its architecture, where it has
        one, says what its module is. The same candidate, task and seed give the same result, also where `folder` holds
        what an earlier, perhaps interrupted, call left there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContext:
    """What an exporter may use besides the candidate and the task: the limits of the device's runtime.

    Attributes:
        opset: Highest ONNX opset that the runtime loads.
        ir_version: Highest ONNX IR version that it loads.
        in_place: Whether it lets a depthwise convolution overwrite its input.
        patch_above: Bytes of activations above which it computes the first blocks patch by patch; None for never.
        decoding: Sentences that say how an image file becomes pixels; files carry them along.
        progress: Told how far the exporter is.
    """

    opset: int = 18
    ir_version: int = 8
    in_place: bool = False
    patch_above: float | None = None
    decoding: tuple[str, ...] = ()
    progress: Progress = field(default=quiet)


class Exporter(Protocol):
    """Writes a candidate as files and checks them by running them."""

    def graph_input(self, preprocessing: Preprocessing) -> "GraphInput":
        """Return how its files take an image, so that a device is probed with files that do the same."""
        ...

    def export(self, candidate: Candidate, task: Task, folder: Path, context: ExportContext) -> Exported:
        """Write the files into `folder` and compare them with the network on validation images.

        The candidate stays as it was. `folder` then holds `manifest.json`, which speaks of these files and no others,
        whatever an earlier export left there. Every file needs no opset or IR version above the context's.
        """
        ...


EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator", group="embedded_nas.evaluators", builtin=("nas.evaluate.training",)
)
STAGES: Registry[Stage] = Registry(
    "stage",
    group="embedded_nas.stages",
    builtin=("nas.compress.prune", "nas.compress.distill", "nas.compress.quantize"),
)
EXPORTERS: Registry[Exporter] = Registry("exporter", group="embedded_nas.exporters", builtin=("nas.export.onnx",))
