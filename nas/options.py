"""Options of a run that belong to no single part of it."""

from dataclasses import dataclass
from typing import Literal, get_args

Baseline = Literal["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """What happens to the front: a run's `[pipeline]` table.

    Attributes:
        finalists: Members of the front that are trained to the end and go through the stages.
        timed: Most trained networks that are timed on the device before finalists are chosen, where latency is limited
            and the device can; 0 to believe the latency model.
        attempts: Most members tried in all, when those before them miss the budget once measured.
        baselines: Hand-made networks put through the same training, stages and device, at the greatest width that fits.
    """

    finalists: int = 2
    timed: int = 10
    attempts: int = 6
    baselines: tuple[Baseline, ...] = BASELINES

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if self.timed < 0:
            raise ValueError(f"timed must not be negative, got {self.timed}")
        if not 1 <= self.finalists <= self.attempts:
            raise ValueError(f"finalists must lie between 1 and attempts, got {self.finalists} and {self.attempts}")
