"""How networks are trained: plain options, and the values they stand for once the data are known."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Options of one training; a run's `[train]` table.

    The defaults train networks of 10k to 2M parameters on 1,000 to 60,000 images: SGD with Nesterov momentum,
    a cosine after a short warm-up, label smoothing, and a batch that grows with the data set, so that a small
    set still gives enough steps. What is None follows from the optimizer and the number of training images:
    see `resolved`.

    Attributes:
        epochs: Length of the whole schedule; a rung is a prefix of it.
        batch_size: Images a step. None: 32 below 4,000 training images, 64 below 16,000, else 128.
        optimizer: SGD with Nesterov momentum, or AdamW.
        learning_rate: At its peak. None: SGD 0.2 at 128 images a step, in proportion to the square root of
            the batch; AdamW 0.003.
        momentum: Of SGD; the first beta of AdamW.
        weight_decay: On weights of convolutions and linear layers, never on norms and biases. None: SGD
            0.0005, AdamW 0.05.
        schedule: How the learning rate falls to zero after the warm-up.
        warmup: Share of all steps in which the learning rate rises linearly.
        label_smoothing: Share of the target spread over all classes.
        ema: Decay a step of an exponential moving average of the weights, which is then what is returned; 0
            for none.
        clip_norm: Largest norm of the gradient, longer ones are scaled down; 0 for no limit.
        threads: Of torch within this process. More than one belongs to a machine that has nothing else to do.
        validate_every: Epochs between validations; the last epoch is always validated.
        init: File to start from, .safetensors or weights-only .pth; empty for random weights.
        teacher: File of a trained network that teaches the winners; empty for the largest network of the
            space.
        max_hours: Wall time after which a search ends with what it has; 0 for no limit.
    """

    epochs: int = 20
    batch_size: int | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup: float = 0.1
    label_smoothing: float = 0.1
    ema: float = 0.0
    clip_norm: float = 5.0
    threads: int = 1
    validate_every: int = 5
    init: str = field(default="", metadata={"path": True})
    teacher: str = field(default="", metadata={"path": True})
    max_hours: float = 0.0

    # Read by pydantic when a run file is parsed; without it unknown keys would be dropped in silence.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}  # Any: pydantic's own

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(
            self.batch_size is None or self.batch_size >= 2,
            f"batch_size must be at least 2, got {self.batch_size}",
        )
        _require(self.optimizer in ("sgd", "adamw"), f"optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")
        _require(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate must be positive, got {self.learning_rate}",
        )
        _require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}")
        _require(
            self.weight_decay is None or self.weight_decay >= 0,
            f"weight_decay must not be negative, got {self.weight_decay}",
        )
        _require(
            self.schedule in ("cosine", "linear"),
            f"schedule must be 'cosine' or 'linear', got {self.schedule!r}",
        )
        _require(0 <= self.warmup < 1, f"warmup is a share of all steps in [0, 1), got {self.warmup}")
        _require(0 <= self.label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        _require(0 <= self.ema < 1, f"ema must lie in [0, 1), got {self.ema}")
        _require(self.clip_norm >= 0, f"clip_norm must not be negative, got {self.clip_norm}")
        _require(self.threads >= 1, f"threads must be at least 1, got {self.threads}")
        _require(self.validate_every >= 1, f"validate_every must be at least 1, got {self.validate_every}")
        _require(self.max_hours >= 0, f"max_hours must not be negative, got {self.max_hours}")

    def replace(self, **changes: Any) -> Self:
        """Return options with other fields."""
        return dataclasses.replace(self, **changes)

    def resolved(self, num_images: int) -> "TrainOptions":
        """Return the options with every None replaced by what it stands for with `num_images`."""
        batch_size = self.batch_size
        if batch_size is None:
            batch_size = 32 if num_images < 4_000 else 64 if num_images < 16_000 else 128
        learning_rate, weight_decay = self.learning_rate, self.weight_decay
        if learning_rate is None:
            learning_rate = 0.2 * (batch_size / 128) ** 0.5 if self.optimizer == "sgd" else 0.003
        if weight_decay is None:
            weight_decay = 5e-4 if self.optimizer == "sgd" else 0.05
        return self.replace(batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay)

    def continued(self, num_images: int, *, epochs: int, factor: float) -> "TrainOptions":
        """Return options for training on: a schedule of its own with `factor` of the peak learning rate."""
        resolved = self.resolved(num_images)
        assert resolved.learning_rate is not None
        return resolved.replace(epochs=epochs, learning_rate=resolved.learning_rate * factor)

    def trajectory(self) -> dict[str, Any]:  # Any: JSON values
        """Return the options that decide what the weights become, as a checkpoint records them."""
        record = dataclasses.asdict(self)
        for name in ("validate_every", "init", "teacher", "max_hours"):
            del record[name]
        return record

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Return the learning rate of one step of resolved options.

        Args:
            step: From 0.
            num_steps: Of the whole schedule.
        """
        assert self.learning_rate is not None, "options must be resolved"
        warm = round(self.warmup * num_steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        done = (step - warm) / max(1, num_steps - warm)
        factor = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * factor


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
