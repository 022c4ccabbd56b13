"""What worker processes do: train candidates and finalists, apply stages; a folder is left whole or not at all."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from latency_models.prediction import PREDICTORS, Predictor
from nas.candidate import Candidate
from nas.data.decode import RULES
from nas.export import run_file
from nas.export.trial import Trial
from nas.pipeline.setup import State
from nas.protocols import STAGES, EvaluationContext, ExportContext, StageContext
from nas.run import write_json
from nas.search.objectives import limits_on, patch_above
from nas.search.study import Trained
from nas.store import load_candidate, save_candidate, save_predictions
from nas.task import Task
from nas.train import TrainingDiverged, start_from, train
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.counts import macs
from search_spaces.errors import RunError
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision, QuantizationPlan
from search_spaces.reparametrize import deploy, is_deployed, training_form
from search_spaces.workload import Workload

DONE = "done.json"
EXPORT = "export"
PREDICTIONS = "predictions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchJob:
    """One training of the search.

    Attributes:
        architecture: JSON of the network.
        key: Of the network.
        until_epoch: Epoch to train to.
        epochs: Length of the schedule.
        seed: Of weights, order and augmentation.
        folder: Where checkpoints are kept.
        deadline: Unix time after which it stops; 0 for never.
    """

    architecture: str
    key: str
    until_epoch: int
    epochs: int
    seed: int
    folder: str
    deadline: float = 0.0


def train_candidate(state: State, job: SearchJob) -> Trained | None:
    """Train one candidate to a rung; None when time ran out first. A training that diverges is a result too."""
    start = time.monotonic()
    context = EvaluationContext(
        train=replace(state.config.train, epochs=job.epochs),
        until_epoch=job.until_epoch,
        seed=job.seed,
        folder=Path(job.folder),
        should_stop=lambda: bool(job.deadline) and time.time() > job.deadline,
    )
    evaluator = state.config.evaluator
    failed = ""
    try:
        found = evaluator.evaluate(Architecture.from_json(job.architecture), state.task, context)
        metric = found[evaluator.metrics[0]]
    except TrainingDiverged as error:
        failed = str(error)
        metric = Measurement(value=0.0, unit="1", origin="measured", source="training diverged")
    except RunError:
        if context.should_stop():
            return None
        raise
    if context.should_stop() and not failed:
        return None
    return Trained(key=job.key, metric=metric, seconds=time.monotonic() - start, failed=failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalJob:
    """One full training.

    Attributes:
        architecture: JSON of the network.
        folder: Where the candidate goes.
        seed: Of weights, order and augmentation.
        export: Whether files are written and run too; a teacher needs none.
        pretrained: Whether it starts from `train.init`, where the run names one.
    """

    architecture: str
    folder: str
    seed: int
    export: bool = True
    pretrained: bool = True


def train_finalist(state: State, job: FinalJob) -> float:
    """Train a network to the end, export it and leave its folder; return the seconds it took."""
    start = time.monotonic()
    architecture, folder = Architecture.from_json(job.architecture), Path(job.folder)
    task = state.task.at_size(*architecture.input_shape[1:])
    trained_as = training_form(architecture)
    network = build(trained_as, seed=job.seed)
    notes: tuple[str, ...] = ()
    if state.config.train.init and job.pretrained:
        notes = (start_from(network, Path(state.config.train.init)),)
    result = train(network, task, state.config.train, seed=job.seed, folder=folder / "training", key=architecture.key)
    module = _deployed(trained_as, result.module)
    candidate = Candidate(architecture=architecture, module=module, preprocessing=task.preprocessing, notes=notes)
    return _leave(state, candidate, task, folder, start, export=job.export)


def _deployed(architecture: Architecture, module: nn.Module) -> nn.Module:
    """Return the network in the form that ships; itself where no block has another form to train."""
    if is_deployed(architecture):
        return module
    shipped, weights = deploy(architecture, module.state_dict())
    network = build(shipped)
    network.load_state_dict(weights)
    return network.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJob:
    """One stage of one candidate.

    Attributes:
        stage: Its number in the configuration.
        source: Folder of the candidate it starts from.
        folder: Where the result goes.
        seed: Of the stage.
        teacher: Folder of the run's teacher; empty for none.
        predictors: JSON of the latency models by precision.
        alignment: Channels below which narrowing buys no time.
        ships: The plan of the file that will be delivered, where a later stage quantizes.
    """

    stage: int
    source: str
    folder: str
    seed: int
    teacher: str
    predictors: Mapping[Precision, Mapping[str, Any]]  # Any: JSON values
    alignment: int
    ships: QuantizationPlan | None


def apply_stage(state: State, job: StageJob) -> float:
    """Apply one stage, export the result and leave its folder; return the seconds it took."""
    start = time.monotonic()
    candidate, folder = load_candidate(Path(job.source)), Path(job.folder)
    task = state.task.at_size(candidate.preprocessing.height, candidate.preprocessing.width)
    context = StageContext(
        train=state.config.train,
        seed=job.seed,
        folder=folder / "work",
        predict_ms=_predict_with(job.predictors),
        timed=bool(job.predictors),
        alignment=job.alignment,
        teacher=load_candidate(Path(job.teacher)) if job.teacher else None,
        ships=job.ships,
        quantization=state.config.device.plan,
        compare=Trial(task),
    )
    stage = state.config.stages[job.stage].stage
    result = stage.apply(candidate, task, context)
    result = result.replace(stages=(*candidate.stages, STAGES.name_of(type(stage))))
    return _leave(state, result, task, folder, start)


def export_context(state: State) -> ExportContext:
    """Return what the device's runtime allows an exporter."""
    device = state.config.device
    return ExportContext(
        opset=device.opset,
        ir_version=device.ir_version,
        in_place=device.in_place,
        patch_above=patch_above(device, limits_on(device, state.config.budget)),
        decoding=tuple(RULES),
    )


def _leave(state: State, candidate: Candidate, task: Task, folder: Path, start: float, *, export: bool = True) -> float:
    if export:
        exported = state.config.export.export(candidate, task, folder / EXPORT, export_context(state))
        for file in exported.files:
            logits = run_file(file.path, task.validation.images)
            save_predictions(folder / f"{file.precision}.{PREDICTIONS}", logits.argmax(axis=1))
    save_candidate(folder, candidate)
    seconds = time.monotonic() - start
    write_json(folder / DONE, {"seconds": round(seconds, 3)})
    return seconds


def _predict_with(records: Mapping[Precision, Mapping[str, Any]]) -> "_Predict":
    return _Predict({precision: PREDICTORS[record["type"]](record) for precision, record in records.items()})


@dataclass(frozen=True, slots=True)
class _Predict:
    predictors: Mapping[Precision, Predictor]

    def __call__(self, workload: Workload) -> float:
        precision: Precision = "int8" if any(op.dtype == "int8" for op in workload) else "float32"
        if precision not in self.predictors:
            return macs(workload) / 1e6  # a device without timing: fewer MACs are all that "faster" can mean
        return float(self.predictors[precision].predict([workload]).mean_ms[0])
