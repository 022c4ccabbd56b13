"""Gates: whether a stage may keep what it did, judged on paired predictions of the validation split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas.candidate import Verdict
from nas.metrics import PairedChange, paired_change
from nas.task import MetricName
from search_spaces.errors import near_matches
from search_spaces.measurement import Measurement

FIGURES = ("latency_ms", "file_bytes", "weight_bytes", "peak_memory_bytes", "macs", "parameters")
"""What `at_most` can limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a stage may cost.

    Attributes:
        metric: Compared before and after; empty for the task's own.
        max_drop: Largest loss of it that is accepted, as a share. The gate fails when the lower end of the interval
            of the change lies below -max_drop.
        level: Probability of that interval, two-sided.
        at_most: Greatest values of figures after the stage, such as {latency_ms = 2.0}; a figure that is not known
            on the device fails the gate.
        on_fail: Whether a failed gate ends the run or only undoes the stage.
    """

    metric: MetricName | Literal[""] = ""
    max_drop: float = 0.01
    level: float = 0.9
    at_most: Mapping[str, float] = field(default_factory=dict)
    on_fail: Literal["stop", "revert"] = "revert"

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop < 1.0:
            raise ValueError(f"max_drop must lie in [0, 1), got {self.max_drop}")
        if not 0.5 <= self.level < 1.0:
            raise ValueError(f"level must lie in [0.5, 1), got {self.level}")
        for figure, limit in self.at_most.items():
            if figure not in FIGURES:
                raise ValueError(f"at_most holds {figure!r}, no figure of a file: {near_matches(figure, FIGURES)}")
            if not limit > 0:
                raise ValueError(f"at_most.{figure} must be above 0, got {limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a gate decided, and the change it decided on."""

    verdict: Verdict
    reason: str
    change: PairedChange


def judge(
    gate: Gate,
    *,
    labels: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    metric: MetricName,
    figures: Mapping[str, Measurement],
    seed: int,
) -> Decision:
    """Compare predictions before and after a stage on the same images.

    Args:
        gate: The rule.
        labels: Of the validation images, `n`.
        before: Predicted classes before the stage, `n`.
        after: Predicted classes after it, `n`.
        metric: The task's, used where the gate names none.
        figures: Of the file after the stage, for `at_most`.
        seed: Of the bootstrap.
    """
    name = gate.metric or metric
    change = paired_change(labels, before, after, name, level=gate.level, seed=seed)
    over = [
        f"{figure} is {figures[figure].value:.4g} {figures[figure].unit}, more than {limit:.4g}"
        if figure in figures
        else f"{figure} is not known, so it cannot be compared with {limit:.4g}"
        for figure, limit in gate.at_most.items()
        if figure not in figures or figures[figure].value > limit
    ]
    lost = not change.allows(gate.max_drop)
    failed: Verdict = "failed" if gate.on_fail == "stop" else "reverted"
    verdict: Verdict = failed if lost or over else "kept"
    return Decision(verdict=verdict, reason="; ".join([*over, change.sentence(gate.max_drop)]), change=change)
