"""Knowledge distillation beside a control that trains as long without a teacher.

In the published comparison of 12 distillation methods on MobileNetV2 four lose to plain training, three of
them by 1.4 to 6.0 points, and most of what distillation is credited with is often just more training. So the
stage trains twice from the same start, in the same order of the same images, and hands on what is best on
validation
data: the distilled network, the control, or the candidate as it came.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from nas.candidate import Candidate
from nas.metrics import interval
from nas.protocols import STAGES, StageContext
from nas.task import Preprocessing, Task
from nas.train.distillation import LOSSES, LossName, Teacher
from nas.train.evaluate import predictions
from nas.train.given import given_network
from nas.train.loop import train
from nas.train.options import TrainOptions
from nas.train.order import derived_seed
from search_spaces.build import build
from search_spaces.errors import ConfigError
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement

Outcome = Literal["as it came", "control", "distilled"]


@STAGES.register("distill")
@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Trains the candidate on with a teacher and, as a control, without one.

    Attributes:
        teacher: File of a trained network, as `nas.train.save_network` writes it; empty for the run's
            teacher.
        loss: How the student listens: soft targets (Hinton et al. 2015), their decoupled form (Zhao et al.
            2022) or the squared difference of logits (Ba and Caruana 2014).
        weight: Share of that loss, the rest being cross-entropy with the labels.
        temperature: By which logits are divided.
        epochs: Of each of both trainings.
        start: "weights" trains the candidate on, "scratch" starts from random weights.
        learning_rate_factor: Of the peak learning rate, relative to the run's; only when it starts from
            weights.
        keep: "best" on validation data, or "distilled" whatever the control says.
    """

    teacher: str = field(default="", metadata={"path": True})
    loss: LossName = "decoupled"
    weight: float = 0.5
    temperature: float = 2.0
    epochs: int = 10
    start: Literal["weights", "scratch"] = "weights"
    learning_rate_factor: float = 1.0
    keep: Literal["best", "distilled"] = "best"

    def __post_init__(self) -> None:
        for name, valid, wanted in (
            ("loss", self.loss in LOSSES, f"be one of {', '.join(LOSSES)}"),
            ("weight", 0 < self.weight <= 1, "lie in (0, 1]"),
            ("temperature", self.temperature > 0, "be positive"),
            ("epochs", self.epochs >= 1, "be at least 1"),
            ("start", self.start in ("weights", "scratch"), "be 'weights' or 'scratch'"),
            ("learning_rate_factor", self.learning_rate_factor > 0, "be positive"),
            ("keep", self.keep in ("best", "distilled"), "be 'best' or 'distilled'"),
        ):
            if not valid:
                raise ValueError(f"{name} must {wanted}, got {getattr(self, name)!r}")

    def apply(self, candidate: Candidate, task: Task, context: StageContext) -> Candidate:
        """Return the best of distilled network, control and candidate; `figures` has the metric of each.

        Choosing the best of three on validation data favours it a little there; the report's test figure does
        not share that.

        Raises:
            ConfigError: There is no teacher, it does not suit the task, or a network without architecture is
                to start from scratch.
            TrainingDiverged: Training went astray.
            RunError: A file is damaged, or a checkpoint in the folder is another stage's.
        """
        task = task.at_size(candidate.preprocessing.height, candidate.preprocessing.width)
        teacher = self._teacher(task, context)
        modules: dict[Outcome, nn.Module] = {
            "as it came": candidate.module,
            "control": self._trained("control", None, candidate, task, context),
            "distilled": self._trained("distilled", teacher, candidate, task, context),
        }
        known = {
            outcome: _measured(module, candidate.preprocessing, task, context) for outcome, module in modules.items()
        }
        known_teacher = _measured(teacher.module, teacher.preprocessing, task, context)
        figures = {f"{task.metric}_{outcome.replace(' ', '_')}": figure for outcome, figure in known.items()}
        figures[f"{task.metric}_teacher"] = known_teacher
        values = {outcome: figure.value for outcome, figure in known.items()}
        # The outcomes stand in order of how little they ask for; the first of equals is taken.
        best = max(values, key=lambda outcome: values[outcome])
        chosen: Outcome = "distilled" if self.keep == "distilled" else best
        notes = _notes(chosen, values, known_teacher.value, task)
        return candidate.replace(module=modules[chosen], figures=figures, notes=notes)

    def _trained(
        self,
        outcome: Literal["control", "distilled"],
        teacher: Teacher | None,
        candidate: Candidate,
        task: Task,
        context: StageContext,
    ) -> nn.Module:
        first = 0.0 if outcome == "control" else 0.5
        return train(
            self._begin(candidate, context),
            task,
            self._options(context.train, task),
            seed=derived_seed(context.seed, "distill"),
            folder=context.folder / outcome,
            teacher=teacher,
            key=candidate.architecture.key if candidate.architecture else "",
            progress=lambda text, share: context.progress(f"distill, {outcome}, {text}", first + share / 2),
        ).module

    def _begin(self, candidate: Candidate, context: StageContext) -> nn.Module:
        if self.start == "weights":
            return copy.deepcopy(candidate.module)
        if candidate.architecture is None:
            raise ConfigError(
                "distill cannot start a network from scratch that left the block vocabulary; "
                "set start = 'weights', or put distill before the stage that replaced its blocks"
            )
        return build(candidate.architecture, seed=derived_seed(context.seed, "scratch"))

    def _options(self, options: TrainOptions, task: Task) -> TrainOptions:
        if self.start == "scratch":
            return options.replace(epochs=self.epochs)
        return options.continued(len(task.train), epochs=self.epochs, factor=self.learning_rate_factor)

    def _teacher(self, task: Task, context: StageContext) -> Teacher:
        if self.teacher:
            images = task.preprocessing
            architecture, module = given_network(Path(self.teacher), height=images.height, width=images.width)
            channels, height, width = architecture.input_shape
            classes, name = lower(architecture).output.shape[-1], f"the teacher {self.teacher}"
            if classes != len(task.classes):
                raise ConfigError(
                    f"{name} tells {classes} classes apart, task {task.name!r} has {len(task.classes)}; "
                    "train it on this task"
                )
            if channels == task.preprocessing.channels:
                return self._listening(module, replace(task.preprocessing, height=height, width=width))
        elif context.teacher is not None:
            channels, name = context.teacher.preprocessing.channels, "the run's teacher"
            if channels == task.preprocessing.channels:
                return self._listening(context.teacher.module, context.teacher.preprocessing)
        else:
            raise ConfigError("distill needs a teacher: set its key `teacher` to a file, or let the run train one")
        raise ConfigError(f"{name} takes {channels} channels, the task's images have {task.preprocessing.channels}")

    def _listening(self, module: nn.Module, preprocessing: Preprocessing) -> Teacher:
        return Teacher(
            module=module,
            preprocessing=preprocessing,
            loss=self.loss,
            weight=self.weight,
            temperature=self.temperature,
        )


def _measured(module: nn.Module, preprocessing: Preprocessing, task: Task, context: StageContext) -> Measurement:
    split = task.validation
    found = predictions(module, split.images, preprocessing, threads=context.train.threads)
    return interval(split.labels, found, task.metric, seed=0, source=f"{split.name} split")


def _notes(chosen: Outcome, values: Mapping[Outcome, float], teacher: float, task: Task) -> tuple[str, ...]:
    listed = ", ".join(f"{outcome} {value:.4f}" for outcome, value in values.items())
    notes = [f"{task.metric} on validation: {listed}, teacher {teacher:.4f}; handed on: {chosen}"]
    if chosen == "control":
        notes.append("training as long without the teacher was at least as good, so there was no gain")
    elif chosen == "as it came":
        notes.append("neither training gained anything")
    elif values["distilled"] < max(values.values()):
        notes.append("the distilled network is not the best; it is handed on because keep = 'distilled'")
    if teacher <= values["as it came"]:
        notes.append("the teacher is no better than its student was")
    return tuple(notes)
