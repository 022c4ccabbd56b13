"""Training: one function that starts, truncates, continues and finishes."""

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.metrics import interval
from nas.protocols import Progress, quiet
from nas.task import Task
from nas.train.batch_norm import recalibrate_batch_norm
from nas.train.checkpoint import digest, read_tensors, require_same, write_tensors
from nas.train.distillation import Teacher
from nas.train.evaluate import predict
from nas.train.feed import find_device
from nas.train.options import TrainOptions
from nas.train.session import Session, TrainingDiverged
from nas.train.threads import torch_threads
from search_spaces.errors import DataError, RunError
from search_spaces.measurement import Measurement

FORMAT = 1
LAST = "last.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One finished epoch.

    Attributes:
        number: From 1.
        loss: Mean training loss.
        learning_rate: Of its last step.
        metric: The task's metric on the validation split, where the epoch was validated.
        seconds: Wall time, validation apart.
    """

    number: int
    loss: float
    learning_rate: float
    metric: Measurement | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {**asdict(self), "metric": self.metric.to_dict() if self.metric else None}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Epoch":  # Any: JSON values
        """Read the JSON form back."""
        metric = record["metric"]
        return cls(**{**record, "metric": Measurement.from_dict(metric) if metric else None})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainResult:
    """What a training came to.

    Attributes:
        module: The network that was given, trained, in evaluation mode, on the CPU; averaged weights where
            `ema` is set.
        history: Every epoch from the first, those before an interruption included.
        metric: Of the last validation.
        checkpoint: The file it can be continued from.
        stopped: Whether `should_stop` ended it before `until_epoch`.
    """

    module: nn.Module
    history: tuple[Epoch, ...]
    metric: Measurement | None
    checkpoint: Path
    stopped: bool

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def seconds(self) -> float:
        """Wall time of all epochs."""
        return sum(epoch.seconds for epoch in self.history)


def never() -> bool:
    """Ask nobody to stop."""
    return False


def train(
    network: nn.Module,
    task: Task,
    options: TrainOptions,
    *,
    seed: int,
    folder: Path,
    until_epoch: int | None = None,
    teacher: Teacher | None = None,
    key: str = "",
    device: str = "auto",
    progress: Progress = quiet,
    should_stop: Callable[[], bool] = never,
) -> TrainResult:
    """Train a network in place, or continue where the checkpoints in `folder` end.

    A training truncated by `until_epoch` is a prefix of the full one: the same call with a larger value
    continues it, in this process or another, and gives the same bits on the CPU as an uninterrupted run. Give
    the network as it was at the start; the folder knows how far it came. The first and the last state and
    those where a call ended are kept (`epoch-NNNN.safetensors`), the state after each other epoch only until
    the next (`last.safetensors`). Nothing but `train` and `validation` of the task is read.

    Args:
        network: With its initial weights.
        task: What to train for.
        options: How.
        seed: Of image order, augmentation and dropout.
        folder: Where checkpoints are kept, for this training alone.
        until_epoch: Stop after this many epochs of the schedule; None for all.
        teacher: A network to learn from as well.
        key: Of the architecture; a folder of another is refused.
        device: "auto" for CUDA where present, else the CPU; or a name of torch's.
        progress: Told the share done.
        should_stop: Asked before each step; the unfinished epoch is then dropped, the checkpoint stays.

    Raises:
        TrainingDiverged: Loss or weights are not finite; the checkpoint of the epoch before is still there.
        RunError: A checkpoint is damaged, belongs to another training, or cannot be written.
        ConfigError: An augmentation is unknown.
        DataError: There are fewer than two training images, no validation images, or images of another size
            than the task says.
    """
    _check_images(task)
    options = options.resolved(len(task.train))
    until = options.epochs if until_epoch is None else until_epoch
    if not 1 <= until <= options.epochs:
        raise ValueError(f"until_epoch must lie in 1 to epochs = {options.epochs}, got {until}")
    place = find_device(device)
    identity = _identity(network, task, options, seed=seed, teacher=teacher, key=key)
    with torch_threads(options.threads):
        session = Session(network, task, options, seed=seed, device=place, teacher=teacher)
        run = _Run(session, task, options, identity, folder, place)
        run.restore(until)
        stopped = False
        while run.epoch < until and not stopped:
            stopped = not run.advance(until, progress, should_stop)
        return run.result(stopped=stopped)


class _Run:
    """A session with its history and its files."""

    def __init__(
        self,
        session: Session,
        task: Task,
        options: TrainOptions,
        identity: Mapping[str, Any],  # Any: JSON values
        folder: Path,
        device: torch.device,
    ) -> None:
        self._session, self._task, self._options = session, task, options
        self._identity, self._folder, self._device = identity, folder, device
        self._history: list[Epoch] = []
        self._checkpoint = folder / _name(0)
        self._fresh: tuple[int, nn.Module] | None = None

    @property
    def epoch(self) -> int:
        return len(self._history)

    def restore(self, until: int) -> None:
        """Load the furthest state that is not beyond `until`; write the first one where there is none."""
        found = {int(path.stem.removeprefix("epoch-")): path for path in self._folder.glob("epoch-*.safetensors")}
        last = self._folder / LAST
        if last.exists():
            found.setdefault(int(read_tensors(last)[1]["epoch"]), last)
        reached = max((epoch for epoch in found if epoch <= until), default=None)
        if reached is None:
            self._write(self._checkpoint)
            return
        self._checkpoint = found[reached]
        tensors, record = read_tensors(self._checkpoint)
        require_same(record, self._identity, self._checkpoint)
        try:
            self._session.restore(tensors, reached)
            self._history = [Epoch.from_dict(epoch) for epoch in record["history"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{self._checkpoint} does not fit ({error}); remove {self._folder} to start over") from error

    def advance(self, until: int, progress: Progress, should_stop: Callable[[], bool]) -> bool:
        """Train, validate and save one epoch; return False when stopped within it, its start restored."""
        number = self.epoch + 1
        before = next((epoch.metric for epoch in reversed(self._history) if epoch.metric), None)
        label = f"epoch {number}/{self._options.epochs}"
        if before is not None:
            label = f"{label}, {self._task.metric} {before.value:.3f}"
        start = time.perf_counter()
        loss = self._session.run_epoch(
            self.epoch,
            tick=lambda share: progress(label, (self.epoch + share) / until),
            should_stop=should_stop,
        )
        if loss is None:
            self._session.restore(read_tensors(self._checkpoint)[0], self.epoch)
            return False
        seconds = time.perf_counter() - start
        self._history.append(
            Epoch(
                number=number,
                loss=loss,
                learning_rate=self._learning_rate(number),
                metric=None,
                seconds=seconds,
            )
        )
        if number == self._options.epochs:
            self._refresh(self._session.deployed)
        if number == until or number % self._options.validate_every == 0:
            self._history[-1] = replace(self._history[-1], metric=self._validate())
        self._checkpoint = self._folder / (_name(number) if number == until else LAST)
        self._write(self._checkpoint)
        if number == until:
            (self._folder / LAST).unlink(missing_ok=True)
        return True

    def result(self, *, stopped: bool) -> TrainResult:
        """Return the outcome, with the weights that count in the network that was given."""
        network, deployed = self._session.network, self._deployed()
        if deployed is not network:
            network.load_state_dict(deployed.state_dict())
        network.eval().to("cpu", memory_format=torch.contiguous_format)
        metrics = [epoch.metric for epoch in self._history if epoch.metric is not None]
        return TrainResult(
            module=network,
            history=tuple(self._history),
            metric=metrics[-1] if metrics else None,
            checkpoint=self._checkpoint,
            stopped=stopped,
        )

    def _deployed(self) -> nn.Module:
        """Return the network to judge and hand out, with fresh batch norm statistics.

        Running statistics lag behind the weights: after 2 of 10 epochs on digits 29 % of the images were
        right with them and 91 % with fresh ones, so a truncated training would be judged by its lag. Before
        the last epoch this is a copy, since the running ones are part of the training's state; after it,
        `advance` has refreshed them in place.
        """
        if self.epoch >= self._options.epochs:
            return self._session.deployed
        if self._fresh is None or self._fresh[0] != self.epoch:
            network = copy.deepcopy(self._session.deployed)
            self._refresh(network)
            self._fresh = (self.epoch, network)
        return self._fresh[1]

    def _refresh(self, network: nn.Module) -> None:
        recalibrate_batch_norm(network, self._task, device=str(self._device), threads=self._options.threads)

    def _validate(self) -> Measurement:
        logits = predict(
            self._deployed(),
            self._task.validation.images,
            self._task.preprocessing,
            device=str(self._device),
            threads=self._options.threads,
        )
        if not np.isfinite(logits).all():
            raise TrainingDiverged(
                f"the network gives no finite logits for validation images after epoch {self.epoch}; "
                f"lower train.learning_rate (peak {self._options.learning_rate:.3g})"
            )
        split = self._task.validation
        return interval(
            split.labels,
            logits.argmax(1),
            self._task.metric,
            seed=0,
            resamples=500,
            source=f"{split.name} split",
        )

    def _learning_rate(self, number: int) -> float:
        steps = self._session.steps
        return self._options.learning_rate_at(number * steps - 1, self._options.epochs * steps)

    def _write(self, path: Path) -> None:
        unfinished = self.epoch < self._options.epochs
        record = {
            **self._identity,
            "epoch": self.epoch,
            "history": [epoch.to_dict() for epoch in self._history],
        }
        write_tensors(path, self._session.tensors(with_optimizer=unfinished), record)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:04d}.safetensors"


def _check_images(task: Task) -> None:
    if len(task.train) < 2 or not len(task.validation):
        raise DataError(
            f"task {task.name!r} needs at least 2 training images and 1 validation image, "
            f"got {len(task.train)} and {len(task.validation)}"
        )
    wanted = (task.preprocessing.height, task.preprocessing.width, task.preprocessing.channels)
    for split in (task.train, task.validation):
        if split.images.shape[1:] != wanted:
            raise DataError(
                f"{split.name} images of task {task.name!r} are {split.images.shape[1:]}, "
                f"its preprocessing says {wanted}"
            )


def _identity(
    network: nn.Module, task: Task, options: TrainOptions, *, seed: int, teacher: Teacher | None, key: str
) -> dict[str, Any]:  # Any: JSON values
    """Return all on which the weights depend, so that a checkpoint never continues another training."""
    content = task.data_hash or _hash_arrays(task.train.images, task.train.labels)
    return {
        "format": FORMAT,
        "architecture_key": key,
        "initial_weights": digest({name: tensor.cpu() for name, tensor in network.state_dict().items()})[:16],
        "options": options.trajectory(),
        "seed": seed,
        "data": {
            "hash": content,
            "augment": list(task.augment),
            "balance": task.balance,
            "mean": list(task.preprocessing.mean),
            "std": list(task.preprocessing.std),
        },
        "teacher": teacher.identity() if teacher else None,
    }


def _hash_arrays(*arrays: npt.NDArray[np.generic]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:16]
