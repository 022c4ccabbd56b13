"""The budget, and what rows of a space cost against it, without training anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from latency_models.device import Device
from latency_models.prediction import AdditivePredictor, Predictor, residual_quantile
from latency_models.timed_range import timed_span
from search_spaces import counts, memory
from search_spaces.architecture import Architecture
from search_spaces.fusion import fuse_segment
from search_spaces.lowering import lower
from search_spaces.patches import patches_above
from search_spaces.precision import Precision, QuantizationPlan, quantize_segment, with_precision
from search_spaces.restrict import unsupported_ops
from search_spaces.space import ChainSpace, Rows, SearchSpace, decode
from search_spaces.tables import CostTables, Price
from search_spaces.workload import Segment, Workload

Floats = npt.NDArray[np.float64]
ShipsIn = Literal["float32", "int8", "best"]

_PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
LIMITS = ("latency_ms", "parameters", "weight_bytes", "macs", "peak_memory_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the delivered file may cost; None for no limit. All in the precision that ships.

    Attributes:
        latency_ms: Compared with the upper quantile of the prediction, and with the measurement in the end.
        parameters: Trainable parameters.
        weight_bytes: Weights, biases and quantization tables; the sum over blocks while searching, then what the
            file stores.
        macs: Multiply-accumulates.
        peak_memory_bytes: Activations alive at once; compared with the liveness bound while searching and with
            the plan of the file, padded channels included, before a network is trained to the end and after.
        level: Probability with which a network must stay under `latency_ms` by prediction.
        precision: What ships: float32, int8, or the faster of those that fit.
    """

    latency_ms: float | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    peak_memory_bytes: int | None = None
    level: float = 0.9
    precision: ShipsIn = "best"

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be above 0, got {limit}")
        if not 0.5 <= self.level < 1.0:
            raise ValueError(f"level must lie in [0.5, 1), got {self.level}")

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        return {name: float(getattr(self, name)) for name in LIMITS if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Costs of `n` networks, each in the precision it would ship in.

    Attributes:
        precision: Index into `precisions` for each network.
        precisions: What that index means.
        objective: What search minimizes: predicted latency, or MACs on a device without timing.
        figures: Values by name: macs, parameters, weight_bytes, peak_memory_bytes, latency_ms (mean), upper_ms.
        excess: For every limit, value / limit - 1; and counts of operators the device cannot run or never timed.
    """

    precision: npt.NDArray[np.int64]
    precisions: tuple[Precision, ...]
    objective: Floats
    figures: Mapping[str, Floats]
    excess: Mapping[str, Floats]

    @property
    def violation(self) -> Floats:
        """Sum of all positive excesses, shape `(n,)`; 0 for networks that fit."""
        total = np.zeros(len(self.objective))
        for over in self.excess.values():
            total += np.maximum(over, 0.0)
        return total

    @property
    def feasible(self) -> npt.NDArray[np.bool_]:
        """Which networks fit."""
        return self.violation <= 0.0


@dataclass(frozen=True, slots=True)
class RowCosts:
    """Prices rows of a space on one device; exact for chain spaces with an additive latency model, in arrays.

    Attributes:
        space: The space of the rows.
        device: Whose operators, memory and 8-bit scheme count.
        predictors: Latency models by precision; empty for a device without timing, where MACs are minimized.
        budget: The limits.
    """

    space: SearchSpace
    device: Device
    predictors: Mapping[Precision, Predictor]
    budget: Budget
    _price: list[Callable[[Rows], Mapping[str, Floats]]] = field(default_factory=list, init=False, repr=False)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that are compared."""
        if self.budget.precision != "best":
            return (self.budget.precision,)
        return tuple(p for p in _PRECISIONS if p in self.device.precisions)

    def plan(self, precision: Precision) -> QuantizationPlan | None:
        """Return the plan a network of that precision is lowered with."""
        return self.device.plan if precision == "int8" else None

    def __call__(self, rows: Rows) -> Costs:
        """Return the costs of rows."""
        if not self._price:
            self._price.append(self._tables() or self._one_by_one())
        return self._judge(self._price[0](rows))

    def of(self, architectures: Sequence[Architecture]) -> Costs:
        """Return the costs of any networks, by the scalar path."""
        found = [self._scalar(architecture) for architecture in architectures]
        return self._judge({name: np.array([figures[name] for figures in found]) for name in found[0]})

    def _judge(self, raw: Mapping[str, Floats]) -> Costs:
        choices = [self._judge_precision(raw, precision) for precision in self.precisions]
        rank = np.stack([np.where(c.feasible, c.objective, 1e12 * (1.0 + c.violation)) for c in choices])
        best = rank.argmin(axis=0)

        def pick(parts: list[Floats]) -> Floats:
            picked: Floats = np.take_along_axis(np.stack(parts), best[None], axis=0)[0]
            return picked

        return Costs(
            precision=best,
            precisions=self.precisions,
            objective=pick([choice.objective for choice in choices]),
            figures={name: pick([c.figures[name] for c in choices]) for name in choices[0].figures},
            excess={name: pick([c.excess[name] for c in choices]) for name in choices[0].excess},
        )

    def _judge_precision(self, raw: Mapping[str, Floats], precision: Precision) -> Costs:
        figures = {
            "macs": raw.get(f"macs.{precision}", raw["macs"]),
            "parameters": raw["parameters"],
            "weight_bytes": raw[f"weight_bytes.{precision}"],
            "peak_memory_bytes": raw[f"peak_memory_bytes.{precision}"],
        }
        excess: dict[str, Floats] = {"unsupported operators": raw["unsupported"]}
        bounds = dict(figures)
        if precision in self.predictors:
            figures |= {
                "latency_ms": raw[f"latency_ms.{precision}"],
                "upper_ms": raw[f"upper_ms.{precision}"],
            }
            bounds["latency_ms"] = figures["upper_ms"]
            excess["operators never timed"] = raw[f"unseen.{precision}"]
            span = timed_span(self.predictors[precision])
            if span is not None:
                excess["far outside the timed latencies"] = _beyond(figures["latency_ms"], *span)
        for name, limit in self.limits().items():
            if name in bounds:
                excess[name] = bounds[name] / limit - 1.0
        objective = figures.get("latency_ms", figures["macs"])
        return Costs(np.zeros(len(objective), np.int64), (precision,), objective, figures, excess)

    def limits(self) -> dict[str, float]:
        """Return the budget's limits, tightened by the device's memory and flash."""
        return limits_on(self.device, self.budget)

    def _prices(self) -> dict[str, Price]:
        allowed = frozenset(self.device.allow_ops)
        prices = {
            "macs": Price(counts.segment_macs),
            "parameters": Price(counts.segment_parameters),
            "unsupported": Price(lambda segment: _unsupported(segment, allowed)),
        }
        for precision in self.precisions:
            prices |= self._prices_at(precision, self.plan(precision))
        return prices

    def _prices_at(self, precision: Precision, plan: QuantizationPlan | None) -> dict[str, Price]:
        def at(segment: Segment) -> Segment:
            return fuse_segment(segment) if plan is None else quantize_segment(segment, plan)

        prices = {
            f"weight_bytes.{precision}": Price(lambda segment: counts.segment_weight_bytes(at(segment))),
            f"peak_memory_bytes.{precision}": Price(
                lambda segment: memory.segment_peak_bytes(at(segment), self.device.in_place), "max"
            ),
        }
        predictor = self.predictors.get(precision)
        if isinstance(predictor, AdditivePredictor):
            prices[f"latency_ms.{precision}"] = Price(lambda segment: predictor.segment_ms(at(segment)))
            prices[f"unseen.{precision}"] = Price(
                lambda segment: float(len(predictor.unseen(Workload((at(segment),), ("",)))))
            )
        return prices

    def _tables(self) -> Callable[[Rows], Mapping[str, Floats]] | None:
        additive = all(isinstance(predictor, AdditivePredictor) for predictor in self.predictors.values())
        if not isinstance(self.space, ChainSpace) or not additive or self.device.patches:
            return None
        tables = CostTables(self.space, self._prices())

        def price(rows: Rows) -> Mapping[str, Floats]:
            raw = tables(rows)
            for precision, predictor in self.predictors.items():
                if precision in self.precisions:
                    assert isinstance(predictor, AdditivePredictor)
                    raw[f"latency_ms.{precision}"] = raw[f"latency_ms.{precision}"] + predictor.base_ms
                    factor = 1.0 + residual_quantile(predictor.residuals, self.budget.level)
                    raw[f"upper_ms.{precision}"] = raw[f"latency_ms.{precision}"] * max(factor, 1e-3)
            return raw

        return price

    def _one_by_one(self) -> Callable[[Rows], Mapping[str, Floats]]:
        known: dict[bytes, dict[str, float]] = {}

        def price(rows: Rows) -> Mapping[str, Floats]:
            for row in rows:
                if row.tobytes() not in known:
                    known[row.tobytes()] = self._scalar(decode(self.space, row))
            found = [known[row.tobytes()] for row in rows]
            return {name: np.array([figures[name] for figures in found]) for name in found[0]}

        return price

    def _peak_and_macs(self, workload: Workload) -> tuple[float, float]:
        """Return both as the device's runtime has them: in patches where it can and the network needs it."""
        in_place, limit = self.device.in_place, patch_above(self.device, self.limits())
        stage = None if limit is None else patches_above(workload, limit, in_place=in_place)
        if stage is not None:
            return float(stage.peak_bytes), float(stage.macs)
        return float(memory.peak_bytes(workload, in_place=in_place)), float(counts.macs(workload))

    def _scalar(self, architecture: Architecture) -> dict[str, float]:
        raw = lower(architecture)
        allowed = frozenset(self.device.allow_ops)
        found = {
            "macs": float(counts.macs(raw)),
            "parameters": float(counts.parameters(raw)),
            "unsupported": sum(_unsupported(segment, allowed) for segment in raw.segments),
        }
        for precision in self.precisions:
            workload = with_precision(raw, self.plan(precision))
            found[f"weight_bytes.{precision}"] = float(counts.weight_bytes(workload))
            peak, total = self._peak_and_macs(workload)
            found[f"peak_memory_bytes.{precision}"], found[f"macs.{precision}"] = peak, total
            predictor = self.predictors.get(precision)
            if predictor is not None:
                prediction = predictor.predict([workload])
                found[f"latency_ms.{precision}"] = float(prediction.mean_ms[0])
                found[f"upper_ms.{precision}"] = float(prediction.quantile_ms(self.budget.level)[0])
                found[f"unseen.{precision}"] = float(len(predictor.unseen(workload)))
        return found


def _beyond(latency_ms: Floats, low: float, high: float) -> Floats:
    """Return by what share latencies lie more than a factor of 2 outside what was timed; 0 and less where inside."""
    beyond: Floats = np.maximum(0.5 * low / np.maximum(latency_ms, 1e-9), latency_ms / (2.0 * high)) - 1.0
    return beyond


def limits_on(device: Device, budget: Budget) -> dict[str, float]:
    """Return a budget's limits by name, tightened by the device's memory and flash."""
    limits = budget.limits()
    for name, most in (("peak_memory_bytes", device.arena_bytes), ("weight_bytes", device.weight_limit_bytes)):
        if most is not None:
            limits[name] = min(limits.get(name, np.inf), float(most))
    return limits


def patch_above(device: Device, limits: Mapping[str, float]) -> float | None:
    """Return the bytes above which the device's runtime computes first blocks in patches; None for never."""
    return limits.get("peak_memory_bytes") if device.patches else None


def _unsupported(segment: Segment, allowed: frozenset[str]) -> float:
    return float(len(unsupported_ops(segment, allowed))) if allowed else 0.0
