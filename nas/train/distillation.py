"""Teachers and the losses by which a student learns from one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from nas.task import Preprocessing
from nas.train.checkpoint import digest

LossName = Literal["soft_targets", "decoupled", "logit_mse"]

DistillationLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""From logits of student and teacher `n x classes`, labels `n` and the temperature to the mean loss."""


def soft_targets(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the divergence from the teacher's softened probabilities (Hinton et al. 2015, arXiv:1503.02531).

    Kullback-Leibler's, as there times the squared temperature, so that gradients do not shrink with it.
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


DECOUPLED_BETA = 2.0
"""Weight of the part without the target class; the paper tunes it from 1 to 8 for each pair."""


def decoupled(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the decoupled loss (Zhao et al. 2022, arXiv:2203.08679, equation 7): target + beta x the rest.

    Unlike the paper there is no warm-up of this loss: the learning rate has one. With two classes the second
    part is zero.
    """
    target = F.one_hot(labels, student.shape[1]).bool()
    log_student, log_teacher = (F.log_softmax(logits / temperature, 1) for logits in (student, teacher))
    binary = _kl(_target_or_not(log_student, target), _target_or_not(log_teacher, target))
    rest_student, rest_teacher = (
        F.log_softmax((logits / temperature).masked_fill(target, -1e4), 1) for logits in (student, teacher)
    )
    rest = _kl(rest_student, rest_teacher)
    return (binary + DECOUPLED_BETA * rest) * temperature**2


def logit_mse(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean squared difference of logits (Ba and Caruana 2014, arXiv:1312.6184).

    No temperature enters. Logits are centred for each image first, since a common offset means nothing.
    """
    return F.mse_loss(student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True))


LOSSES: dict[LossName, DistillationLoss] = {
    "soft_targets": soft_targets,
    "decoupled": decoupled,
    "logit_mse": logit_mse,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """A trained network and how a student listens to it.

    The student's loss is `(1 - weight)` x cross-entropy + `weight` x the distillation loss. The teacher sees
    the very images the student sees, augmentation included, as consistent teaching asks for (Beyer et al.
    2022, arXiv:2106.05237); where nothing is augmented its logits are computed once.

    Attributes:
        module: The network; left as it is.
        preprocessing: How it wants its images; another size than the student's is resized from the student's.
        loss: Name of a distillation loss.
        weight: Share of that loss, 0 to 1.
        temperature: By which logits are divided.
    """

    module: nn.Module
    preprocessing: Preprocessing
    loss: LossName = "soft_targets"
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {self.weight}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def identity(self) -> dict[str, str | float]:
        """Return what decides its lessons, as a checkpoint records it."""
        weights = {name: tensor.cpu() for name, tensor in self.module.state_dict().items()}
        return {
            "loss": self.loss,
            "weight": self.weight,
            "temperature": self.temperature,
            "weights": digest(weights)[:16],
        }


def _kl(log_student: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _target_or_not(log_shares: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return log probabilities of two outcomes, `n x 2`: the target class, any other class."""
    hit = log_shares[target]
    others = log_shares.masked_fill(target, -torch.inf).logsumexp(1)
    return torch.stack([hit, others], 1)
