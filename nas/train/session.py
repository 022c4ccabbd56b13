"""One training in memory: network, optimizer, averaged weights, and the epoch that moves them."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from nas.task import Task
from nas.train.augment import find_augmentations
from nas.train.checkpoint import part
from nas.train.distillation import LOSSES, Teacher
from nas.train.evaluate import predict
from nas.train.feed import Feed, Normalize
from nas.train.options import TrainOptions
from nas.train.order import Indices, class_weights, derived_seed, epoch_batches, num_batches
from search_spaces.errors import RunError

GPU_CHECK_EVERY = 32
"""Steps between looks at the loss on a GPU, where each look waits for the device."""


class TrainingDiverged(RunError):  # noqa: N818 - the name states the event, as GateFailed does
    """The loss or a weight is no longer finite; a search scores such a candidate as failed."""


class Session:
    """Everything of a training that a checkpoint must hold, and what one epoch needs.

    Order of the images, augmentation and dropout of an epoch depend on the seed and the epoch's number alone,
    so an epoch that starts from restored tensors ends as the uninterrupted one does, bit for bit on the CPU.

    Args:
        network: Trained in place.
        task: Its training images and augmentations are used.
        options: Resolved.
        seed: Of order, augmentation and dropout.
        device: Where to compute.
        teacher: Whom to listen to.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        options: TrainOptions,
        *,
        seed: int,
        device: torch.device,
        teacher: Teacher | None,
    ) -> None:
        self._task, self._options, self._seed, self._device = task, options, seed, device
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = list(network.parameters())
        self._optimizer = _optimizer(network, options)
        self._average = _average(network, options)
        self._feed = Feed(task.train.images, device)
        self._normalize = Normalize(task.preprocessing, device)
        self._augmentations = find_augmentations(task.augment)
        self._labels = torch.from_numpy(np.array(task.train.labels)).to(device)
        self._class_weights: torch.Tensor | None = None
        if task.balance == "class_weights":
            self._class_weights = torch.from_numpy(class_weights(task.train.labels, len(task.classes))).to(device)
        self._teacher = teacher
        self._ask_teacher = _lessons(teacher, task, options, device) if teacher else None
        assert options.batch_size is not None, "options must be resolved"
        self._batch_size = options.batch_size
        self.steps = num_batches(len(task.train), options.batch_size)

    @property
    def deployed(self) -> nn.Module:
        """The network whose weights count: the average where there is one."""
        return self.network if self._average is None else self._average.module

    def tensors(self, *, with_optimizer: bool) -> dict[str, torch.Tensor]:
        """Return all state: `weights/NAME`, `ema/NAME`, `optimizer/NAME/KEY`."""
        state = {f"weights/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self._average is not None:
            state |= {f"ema/{name}": tensor for name, tensor in self._average.module.state_dict().items()}
        if with_optimizer:
            for name, parameter in self.network.named_parameters():
                for key, value in self._optimizer.state.get(parameter, {}).items():
                    if isinstance(value, torch.Tensor):
                        state[f"optimizer/{name}/{key}"] = value
        return state

    def restore(self, tensors: dict[str, torch.Tensor], epoch: int) -> None:
        """Continue from the tensors of a session that had finished `epoch` epochs."""
        self.network.load_state_dict(part(tensors, "weights/"))
        if self._average is not None:
            self._average.module.load_state_dict(part(tensors, "ema/"))
            self._average.n_averaged.fill_(epoch * self.steps)
        self._optimizer.state.clear()
        parameters = dict(self.network.named_parameters())
        for place, value in part(tensors, "optimizer/").items():
            name, key = place.rsplit("/", 1)
            owner = parameters[name]
            # Steps are counted on the CPU; averages lie as their parameter does.
            kept = value if value.ndim == 0 else torch.empty_like(owner).copy_(value)
            self._optimizer.state[owner][key] = kept

    def run_epoch(self, epoch: int, *, tick: Callable[[float], None], should_stop: Callable[[], bool]) -> float | None:
        """Train one epoch, counted from 0; return the mean loss, or None when stopped before its end.

        Raises:
            TrainingDiverged: The loss or a weight is no longer finite.
        """
        batches = epoch_batches(
            self._task.train.labels,
            self._batch_size,
            seed=self._seed,
            epoch=epoch,
            balanced=self._task.balance == "sampler",
        )
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "augment", epoch))
        look_every = 1 if self._device.type == "cpu" else GPU_CHECK_EVERY
        total = torch.zeros((), device=self._device)
        self.network.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(derived_seed(self._seed, "dropout", epoch))
            for step, batch in enumerate(batches):
                if should_stop():
                    return None
                total += self._step(batch, generator, epoch * self.steps + step) * len(batch)
                if (step + 1) % look_every == 0 and not math.isfinite(total.item()):
                    raise self._diverged("loss", epoch, step)
                tick((step + 1) / len(batches))
        finite = all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values())
        if not finite or not math.isfinite(total.item()):
            raise self._diverged("loss or a weight", epoch, len(batches) - 1)
        return total.item() / sum(map(len, batches))

    def _step(self, batch: Indices, generator: torch.Generator, step: int) -> torch.Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.learning_rate_at(step, self._options.epochs * self.steps)
        pixels = self._feed.pixels(batch)
        for augment in self._augmentations:
            pixels = augment(pixels, generator)
        loss = self._loss(self.network(self._normalize(pixels)), pixels, torch.from_numpy(batch))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._options.clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._options.clip_norm)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return loss.detach()

    def _loss(self, logits: torch.Tensor, pixels: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        labels = self._labels[batch.to(self._device)]
        hard = F.cross_entropy(
            logits, labels, weight=self._class_weights, label_smoothing=self._options.label_smoothing
        )
        if self._teacher is None or self._ask_teacher is None:
            return hard
        soft = LOSSES[self._teacher.loss](logits, self._ask_teacher(pixels, batch), labels, self._teacher.temperature)
        return (1 - self._teacher.weight) * hard + self._teacher.weight * soft

    def _diverged(self, what: str, epoch: int, step: int) -> TrainingDiverged:
        rate = self._options.learning_rate_at(epoch * self.steps + step, self._options.epochs * self.steps)
        return TrainingDiverged(
            f"the {what} is not finite in epoch {epoch + 1} of {self._options.epochs}, step {step + 1} of "
            f"{self.steps}, at a learning rate of {rate:.3g}; lower train.learning_rate (peak "
            f"{self._options.learning_rate:.3g}) or train.clip_norm ({self._options.clip_norm:g}, 0: none)"
        )


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay acts on matrices and filters (He et al. 2019, arXiv:1812.01187)."""
    assert options.learning_rate is not None, "options must be resolved"
    assert options.weight_decay is not None, "options must be resolved"
    decayed = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.momentum, 0.999), fused=True)
    nesterov = options.momentum > 0
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=nesterov, fused=True)


def _average(network: nn.Module, options: TrainOptions) -> AveragedModel | None:
    """Return the moving average of weights and statistics; as in TensorFlow its decay rises at the start."""
    if not options.ema:
        return None

    def average(mean: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        decay = min(options.ema, (1 + int(count)) / (10 + int(count)))
        return torch.lerp(mean, current, 1 - decay) if mean.is_floating_point() else current.clone()

    return AveragedModel(network, avg_fn=average, use_buffers=True)


def _lessons(
    teacher: Teacher, task: Task, options: TrainOptions, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function from pixels and image numbers of a batch to the teacher's logits."""
    if teacher.preprocessing.channels != task.preprocessing.channels:
        raise ValueError(
            f"the teacher wants {teacher.preprocessing.channels} channels, the task's images have "
            f"{task.preprocessing.channels}"
        )
    if not task.augment:
        known = predict(
            teacher.module,
            task.train.images,
            teacher.preprocessing,
            device=str(device),
            threads=options.threads,
        )
        logits = torch.from_numpy(known).to(device)
        return lambda _pixels, batch: logits[batch.to(device)]
    module = copy.deepcopy(teacher.module).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalize = Normalize(teacher.preprocessing, device)

    def ask(pixels: torch.Tensor, _batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = module(normalize(pixels))
        return logits

    return ask
