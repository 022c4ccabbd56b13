"""The latency model that a device's own measurements choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_models.additive import check_samples
from latency_models.device import Device
from latency_models.left_out import left_out_parts
from latency_models.prediction import LATENCY_MODELS, Array, LatencyModel, Predictor, Sample
from search_spaces.errors import MeasurementError


@LATENCY_MODELS.register("auto")
@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """Fits several models without a part of the samples at a time, and keeps the one with the least error.

    The errors are those of real fits to the other parts, the same parts for every model: what models say themselves
    about left-out samples is not comparable between them. With no more samples than folds each part is one sample.
    Single blocks are never left out: where a model uses them, each of its fits gets all of them.

    Attributes:
        models: Names of latency models; on a tie within 2 % the first wins.
        folds: Parts of the samples.
        seed: Of their choice.
    """

    models: tuple[str, ...] = ("additive", "lookup", "transfer", "gp", "ridge_compact", "roofline")
    folds: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or "auto" in self.models:
            raise ValueError(f"models must name latency models other than auto, got {self.models}")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")

    @property
    def uses_blocks(self) -> bool:
        """Whether any of the models is fitted to single blocks too."""
        return any(_uses_blocks(LATENCY_MODELS.get(name)()) for name in self.models)

    def fit(self, device: Device, samples: Sequence[Sample]) -> Predictor:
        """Return the predictor of the chosen model, fitted to all samples; its `to_dict` names the model.

        Args:
            device: Where the samples were timed.
            samples: Networks, and single blocks where a model uses them: then a sample of one segment is a block.

        Raises:
            MeasurementError: Too few samples for every model, or samples of several origins.
        """
        check_samples(device, samples, least=2)
        is_block = [self.uses_blocks and len(sample.workload.segments) == 1 for sample in samples]
        blocks = [sample for sample, alone in zip(samples, is_block, strict=True) if alone]
        networks = [sample for sample, alone in zip(samples, is_block, strict=True) if not alone]
        check_samples(device, networks, least=2)
        chosen: tuple[float, LatencyModel, list[Sample]] | None = None
        refused: list[str] = []
        for name in self.models:
            model = LATENCY_MODELS.get(name)()
            always = blocks if _uses_blocks(model) else []
            try:
                error = float(np.abs(self.left_out(model, device, networks, always=always)).mean())
            except MeasurementError as reason:
                refused.append(f"{name}: {reason}")
                continue
            if chosen is None or error < 0.98 * chosen[0]:
                chosen = (error, model, always)
        if chosen is None:
            raise MeasurementError("no latency model can be fitted; " + "; ".join(refused))
        _, model, always = chosen
        return model.fit(device, [*always, *networks])

    def left_out(
        self, model: LatencyModel, device: Device, samples: Sequence[Sample], *, always: Sequence[Sample] = ()
    ) -> Array:
        """Return the relative error, (true - predicted) / predicted, of every sample by a fit without its part.

        Every fit gets the samples in `always` besides; they have no error.
        """
        errors = np.empty(len(samples))
        for rest, part in left_out_parts(len(samples), self.folds, self.seed):
            predictor = model.fit(device, [*always, *(samples[number] for number in rest)])
            predicted = predictor.predict([samples[number].workload for number in part]).mean_ms
            errors[part] = np.array([samples[number].latency_ms for number in part]) / predicted - 1.0
        return errors


def _uses_blocks(model: LatencyModel) -> bool:
    return bool(getattr(model, "uses_blocks", False))
