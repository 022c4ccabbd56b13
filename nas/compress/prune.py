"""Structured channel pruning: an architecture goes in, a narrower one with trained weights comes out.

Whole channels leave, so the result is dense and fast everywhere. How many, and where, is decided by predicted
milliseconds on the run's device; which ones, by their importance; what that costs in accuracy is recovered by
training on, with the unpruned network as the teacher.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from nas.candidate import Candidate
from nas.compress.allocate import allocate, kept_channels
from nas.compress.channels import Group, cut, find_groups, verified
from nas.compress.importance import Criterion, channel_importance
from nas.metrics import interval
from nas.protocols import STAGES, Progress, StageContext
from nas.task import Task
from nas.train.batch_norm import recalibrate_batch_norm
from nas.train.checkpoint import digest, load_network, require_same, save_network
from nas.train.distillation import LOSSES, LossName, Teacher
from nas.train.evaluate import predictions
from nas.train.loop import train
from nas.train.order import derived_seed
from nas.train.threads import torch_threads
from search_spaces.architecture import Architecture
from search_spaces.build import Network, build
from search_spaces.errors import ConfigError
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.precision import with_precision


@STAGES.register("prune")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Removes channels until the network's predicted latency is `target` of what it was.

    Several rounds of cutting and training lose less than one (`steps`); between them the milliseconds fall by
    equal factors. Widths stay multiples of the device's alignment, since others buy no time, and every group
    of channels keeps one aligned unit at least.

    Attributes:
        target: Predicted latency to reach, as a share of the candidate's.
        criterion: How channels are ranked; see `nas.compress.importance`.
        steps: Rounds of cutting.
        step_epochs: Epochs after every round but the last.
        epochs: Epochs after the last round; 0 only measures batch norm statistics anew.
        learning_rate_factor: Of these trainings' peak learning rate, relative to the run's. The full one did
            best in our trials, as learning-rate rewinding does for Renda et al. 2020 (arXiv:2003.02389).
        distill: Whether the unpruned network teaches.
        loss: How it is listened to; see `nas.compress.distill`.
        distill_weight: Share of the loss that the teacher gives.
        temperature: By which logits are divided for it.
        images: Training images that rank channels.
        max_cut: Largest share of a group's channels that one round may remove.
    """

    target: float = 0.75
    criterion: Criterion = "taylor"
    steps: int = 3
    step_epochs: int = 2
    epochs: int = 8
    learning_rate_factor: float = 1.0
    distill: bool = True
    loss: LossName = "decoupled"
    distill_weight: float = 0.5
    temperature: float = 2.0
    images: int = 512
    max_cut: float = 0.5

    buys_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, valid, wanted in (
            ("target", 0 < self.target < 1, "lie between 0 and 1"),
            ("steps", self.steps >= 1, "be at least 1"),
            ("step_epochs", self.step_epochs >= 0, "not be negative"),
            ("epochs", self.epochs >= 0, "not be negative"),
            ("learning_rate_factor", self.learning_rate_factor > 0, "be positive"),
            ("loss", self.loss in LOSSES, f"be one of {', '.join(LOSSES)}"),
            ("distill_weight", 0 <= self.distill_weight <= 1, "lie in [0, 1]"),
            ("temperature", self.temperature > 0, "be positive"),
            ("images", self.images >= 2, "be at least 2"),
            ("max_cut", 0 < self.max_cut < 1, "lie between 0 and 1"),
        ):
            if not valid:
                raise ValueError(f"{name} must {wanted}, got {getattr(self, name)!r}")

    def apply(self, candidate: Candidate, task: Task, context: StageContext) -> Candidate:
        """Return the pruned candidate; `figures` has predicted latency and metric before and after.

        Raises:
            ConfigError: The candidate has left the block vocabulary.
            TrainingDiverged: Training on went astray.
            RunError: A checkpoint in the folder is damaged or another stage's.
        """
        if candidate.architecture is None:
            raise ConfigError(
                "prune needs a network of blocks, but this one is a plain module, brought as one or left by a stage "
                "before: put prune first, or write the network as an Architecture"
            )
        task = task.at_size(candidate.preprocessing.height, candidate.preprocessing.width)
        with torch_threads(context.train.threads):
            return _Pruning(self, candidate, candidate.architecture, task, context).run()


class _Pruning:
    """One application of the stage."""

    def __init__(
        self,
        stage: Prune,
        candidate: Candidate,
        architecture: Architecture,
        task: Task,
        context: StageContext,
    ) -> None:
        self._stage, self._candidate, self._task, self._context = stage, candidate, task, context
        self._start = architecture
        self._plan = context.ships if context.ships is not None else candidate.quantization
        self._start_ms = self._price(architecture)
        self._identity = {
            "stage": asdict(stage),
            "seed": context.seed,
            "alignment": context.alignment,
            "candidate": architecture.key,
            "weights": digest(candidate.module.state_dict())[:16],
        }

    def run(self) -> Candidate:
        """Cut and train in rounds."""
        stage = self._stage
        architecture, network = self._start, copy.deepcopy(self._candidate.module).eval()
        groups, left_alone = self._groups()
        reached = False
        for step in range(1, stage.steps + 1):
            before = architecture
            target_ms = self._start_ms * stage.target ** (step / stage.steps)
            architecture, network, reached = self._cut(step, architecture, network, groups, target_ms)
            last = step == stage.steps
            if architecture != (self._start if last else before):
                network = self._recover(step, architecture, network, stage.epochs if last else stage.step_epochs)
            groups = tuple(_resized(group, architecture) for group in groups)
        notes = self._notes(architecture, left_alone, reached=reached)
        return self._candidate.replace(
            architecture=architecture,
            module=network.eval(),
            figures=self._figures(architecture, network),
            notes=notes,
        )

    def _groups(self) -> tuple[tuple[Group, ...], tuple[str, ...]]:
        alignment = self._context.alignment
        groups, refused = find_groups(self._start, alignment=alignment)
        good, mixed = verified(
            self._start, groups, alignment=alignment, seed=derived_seed(self._context.seed, "verify")
        )
        return good, refused + mixed

    def _cut(
        self,
        step: int,
        architecture: Architecture,
        network: nn.Module,
        groups: Sequence[Group],
        target_ms: float,
    ) -> tuple[Architecture, Network, bool]:
        """Return the network after one round of cutting, and whether it meets `target_ms`; kept on disk."""
        path = self._folder(step).with_suffix(".safetensors")
        if path.exists():
            smaller, pruned, record = load_network(path)
            require_same(record.get("identity", {}), self._identity, path)
            return smaller, pruned, bool(record["reached"])
        stage, context = self._stage, self._context
        seed = derived_seed(context.seed, "importance", step)
        scores = channel_importance(stage.criterion, network, groups, self._task, images=stage.images, seed=seed)
        found = allocate(
            architecture,
            groups,
            scores,
            target_ms=target_ms,
            price=self._price,
            alignment=context.alignment,
            max_cut=stage.max_cut,
        )
        kept = {
            group: kept_channels(scores[group.name], found.sizes[group.name])
            for group in groups
            if found.sizes[group.name] < group.size
        }
        smaller, state = cut(architecture, network.state_dict(), kept)
        pruned = build(smaller)
        pruned.load_state_dict(state)
        save_network(path, smaller, pruned, {"identity": self._identity, "reached": found.reached})
        return smaller, pruned.eval(), found.reached

    def _recover(self, step: int, architecture: Architecture, network: Network, epochs: int) -> nn.Module:
        """Train the cut network on, or measure its statistics anew where there is no training."""
        stage, context, task = self._stage, self._context, self._task
        seed = derived_seed(context.seed, "recover", step)
        if not epochs:
            recalibrate_batch_norm(network, task, seed=seed, threads=context.train.threads)
            return network
        teacher = Teacher(
            module=self._candidate.module,
            preprocessing=self._candidate.preprocessing,
            loss=stage.loss,
            weight=stage.distill_weight,
            temperature=stage.temperature,
        )
        return train(
            network,
            task,
            context.train.continued(len(task.train), epochs=epochs, factor=stage.learning_rate_factor),
            seed=seed,
            folder=self._folder(step),
            teacher=teacher if stage.distill else None,
            key=architecture.key,
            progress=self._progress(step),
        ).module

    def _price(self, architecture: Architecture) -> float:
        return self._context.predict_ms(with_precision(lower(architecture), self._plan))

    def _folder(self, step: int) -> Path:
        return self._context.folder / f"step-{step}"

    def _progress(self, step: int) -> Progress:
        label, steps = f"prune {step}/{self._stage.steps}", self._stage.steps
        return lambda text, share: self._context.progress(f"{label}, {text}", (step - 1 + share) / steps)

    def _figures(self, architecture: Architecture, network: nn.Module) -> dict[str, Measurement]:
        split, metric = self._task.validation, self._task.metric
        figures = {}
        for when, module, value in (
            ("before", self._candidate.module, self._start_ms),
            ("after", network, self._price(architecture)),
        ):
            if self._context.timed:
                figures[f"predicted_ms_{when}"] = Measurement(value=value, unit="ms", origin="predicted")
            else:
                figures[f"macs_{when}"] = Measurement(value=1e6 * value, unit="MAC", origin="counted")
            found = predictions(
                module,
                split.images,
                self._candidate.preprocessing,
                threads=self._context.train.threads,
            )
            figures[f"{metric}_{when}"] = interval(split.labels, found, metric, seed=0, source=f"{split.name} split")
        return figures

    def _notes(self, architecture: Architecture, left_alone: Sequence[str], *, reached: bool) -> tuple[str, ...]:
        after_ms = self._price(architecture)
        what, unit = ("predicted latency", "ms") if self._context.timed else ("counted MACs", "million")
        change = (
            f"{what} went from {self._start_ms:.4g} to {after_ms:.4g} {unit} "
            f"({after_ms / self._start_ms:.0%}, wanted {self._stage.target:.0%})"
        )
        notes = [change]
        if not reached:
            notes.append(
                f"no more can go that saves {'time' if self._context.timed else 'MACs'}: every group keeps "
                f"{self._context.alignment} channels, and a round takes at most {self._stage.max_cut:.0%} of a group"
            )
        return (*notes, *(f"left alone: {sentence}" for sentence in left_alone))


def _resized(group: Group, architecture: Architecture) -> Group:
    """Return a group with the size it has in a cut architecture."""
    stage, number, name = group.fields[0]
    return replace(group, size=getattr(architecture.stages[stage][number], name))
