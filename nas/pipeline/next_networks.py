"""Which networks to time next on a device: those whose latency the timed ones determine worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latency_models.device import Device
from latency_models.features import features, matrix
from latency_models.timed_range import refusal
from nas.pipeline.probing import FittedDevice
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision, QuantizationPlan, with_precision
from search_spaces.space import SearchSpace, decode, sample

_LANES = 8
_JUDGED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A network worth timing next.

    Attributes:
        architecture: The network.
        precision: The precision whose model is the less certain one.
        predicted: Its latency as predicted now, in that precision.
        reason: Why it, in words.
    """

    architecture: Architecture
    precision: Precision
    predicted: Measurement
    reason: str


def suggest(fitted: FittedDevice, space: SearchSpace, *, count: int, seed: int) -> list[Suggestion]:
    """Return networks whose timing would teach a device's model most, the first first.

    Networks with kernels that were never timed come first. The others are chosen one after the other by how badly the
    networks timed so far determine their latency: the greatest leverage in a ridge regression on the physical features
    of relative error, a greedy D-optimal design (Fedorov 1972). Of two precisions the one counts whose model is less
    certain of networks that were not timed.
    """
    if not fitted.predictors:
        return []
    whole = [known for known in fitted.profile.networks if known.purpose != "block"]
    seen = {known.architecture.key for known in whole} | {known.architecture.key for known in fitted.profile.refused}
    pool: dict[str, Architecture] = {}
    for row in sample(space, 1000, np.random.default_rng([seed, len(whole)])):
        architecture = decode(space, row)
        if architecture.key not in seen and _runs(architecture, fitted.device):
            pool[architecture.key] = architecture
    candidates = list(pool.values())
    if not candidates:
        return []
    precision = _least_certain(fitted, candidates[:_JUDGED])
    predictor, plan = fitted.predictors[precision], _plan(precision, fitted.device)
    timed = {known.architecture.key: known.architecture for known in whole if known.precision == precision}
    workloads = [with_precision(lower(architecture), plan) for architecture in candidates]
    prediction = predictor.predict(workloads)
    known = [with_precision(lower(architecture), plan) for architecture in timed.values()]
    rows = [features(workload, lanes=_LANES) for workload in (*known, *workloads)]
    columns = sorted({column for row in rows for column in row})
    latencies = np.concatenate([predictor.predict(known).mean_ms, prediction.mean_ms])
    table = matrix(rows, columns) / np.maximum(latencies, 1e-9)[:, None]
    table /= np.maximum(np.sqrt((table**2).mean(axis=0)), 1e-12)
    unseen = [predictor.unseen(workload) for workload in workloads]
    chosen = _leverage_order(table[: len(known)], table[len(known) :], [bool(names) for names in unseen], count)
    return [
        Suggestion(
            architecture=candidates[number],
            precision=precision,
            predicted=prediction.measurement(number, source=fitted.device.name),
            reason=refusal(predictor, workloads[number], float(prediction.mean_ms[number]))
            if unseen[number]
            else f"{macs(workloads[number]) / 1e6:.3g} million MACs, leverage {leverage:.2f}",
        )
        for number, leverage in chosen
    ]


def _least_certain(fitted: FittedDevice, candidates: Sequence[Architecture]) -> Precision:
    """Return the precision whose 90 % intervals are the wider share of the latency, in the median of candidates."""
    widths: dict[Precision, float] = {}
    for precision, predictor in fitted.predictors.items():
        plan = _plan(precision, fitted.device)
        found = predictor.predict([with_precision(lower(architecture), plan) for architecture in candidates])
        widths[precision] = float(np.median((found.quantile_ms(0.95) - found.quantile_ms(0.05)) / found.mean_ms))
    return max(widths, key=lambda precision: widths[precision])


def _plan(precision: Precision, device: Device) -> QuantizationPlan | None:
    return device.plan if precision == "int8" else None


def _runs(architecture: Architecture, device: Device) -> bool:
    allowed = frozenset(device.allow_ops)
    return not allowed or all(op.kind in allowed or op.kind == "reshape" for op in lower(architecture))


def _leverage_order(
    timed: np.ndarray[Any, Any], pool: np.ndarray[Any, Any], first: Sequence[bool], count: int
) -> list[tuple[int, float]]:
    """Return places in `pool` with their leverage, each given those before it; the flagged ones come first."""
    width = pool.shape[1]
    inverse = np.linalg.inv(timed.T @ timed + 0.1 * np.eye(width))
    bonus = np.where(first, 1e9, 0.0)
    found: list[tuple[int, float]] = []
    free = np.ones(len(pool), dtype=np.bool_)
    for _ in range(min(count, len(pool))):
        leverage = ((pool @ inverse) * pool).sum(axis=1)
        place = int(np.where(free, leverage + bonus, -1.0).argmax())
        found.append((place, float(leverage[place])))
        free[place] = False
        step = inverse @ pool[place]
        inverse -= np.outer(step, step) / (1.0 + pool[place] @ step)
    return found
