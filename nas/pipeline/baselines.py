"""Hand-made networks that compete: each family at the greatest width that fits the budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.options import Baseline
from nas.search.objectives import RowCosts
from nas.task import Task
from search_spaces.architecture import Architecture
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.shufflenet_v2 import shufflenet_v2

SMALL_SIDE = 64
"""Images under this side keep their size in the stem, as is usual for small images; published strides above."""

_MAKE: dict[Baseline, tuple[str, Callable[..., Architecture], tuple[float, ...]]] = {
    "mobilenet_v2": ("MobileNetV2", mobilenet_v2, (1.4, 1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1)),
    "mobilenet_v3_small": (
        "MobileNetV3-small",
        lambda **options: mobilenet_v3("small", **options),
        (1.25, 1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1),
    ),
    "shufflenet_v2": ("ShuffleNetV2", shufflenet_v2, (2.0, 1.5, 1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandMade:
    """A hand-made network.

    Attributes:
        family: Its family, as reports print it.
        width: Its width multiplier.
        architecture: The network.
    """

    family: str
    width: float
    architecture: Architecture

    @property
    def name(self) -> str:
        """Family and width."""
        return f"{self.family} x{self.width:g}"


def ladder(baseline: Baseline, task: Task) -> list[HandMade]:
    """Return a family's networks for the task's images, the widest first.

    The last convolution of MobileNetV2 and ShuffleNetV2 keeps its published width below width 1, so on a tight
    budget of bytes narrow ones may not fit either.
    """
    family, make, widths = _MAKE[baseline]
    shape = task.preprocessing.input_shape
    stem_stride = 1 if min(shape[1:]) < SMALL_SIDE else 2
    return [
        HandMade(
            family=family,
            width=width,
            architecture=make(width=width, classes=len(task.classes), input_shape=shape, stem_stride=stem_stride),
        )
        for width in widths
    ]


def widest_that_fits(
    rungs: Sequence[HandMade], costs: RowCosts, time_ms: Callable[[Sequence[Architecture]], Sequence[float]] | None
) -> HandMade | None:
    """Return the widest network within the budget, or None.

    Args:
        rungs: Networks of one family, the widest first.
        costs: What they cost; being unlike anything timed does not disqualify a hand-made network.
        time_ms: Times networks on the device in the faster precision, where it can; otherwise the prediction
            decides.
    """
    judged = costs.of([rung.architecture for rung in rungs])
    fits = [
        all(
            float(over[number]) <= 0
            for name, over in judged.excess.items()
            if name not in ("operators never timed", "far outside the timed latencies", "latency_ms")
        )
        for number in range(len(rungs))
    ]
    limit = costs.budget.latency_ms
    if limit is not None and time_ms is not None:
        measured = time_ms([rung.architecture for rung in rungs])
        fits = [fit and latency <= limit for fit, latency in zip(fits, measured, strict=True)]
    elif limit is not None and "latency_ms" in judged.excess:
        fits = [fit and float(over) <= 0 for fit, over in zip(fits, judged.excess["latency_ms"], strict=True)]
    return next((rung for rung, fit in zip(rungs, fits, strict=True) if fit), None)
