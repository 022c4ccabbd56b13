"""Latency from a table of measured blocks, calibrated on whole networks."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import scipy.optimize

from latency_models.additive import check_samples
from latency_models.device import Device
from latency_models.features import Features, features, matrix, segment_features
from latency_models.prediction import LATENCY_MODELS, PREDICTORS, Array, Prediction, Predictor, Sample
from latency_models.timed_range import TimedRange, timed_range
from search_spaces.errors import MeasurementError
from search_spaces.workload import Segment, Workload

SCHEMA = 1


@LATENCY_MODELS.register("lookup")
@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Sums measured blocks and corrects the sum by what whole networks show.

    A block timed by itself pays for starting the runtime and for two layout conversions that it does not pay within
    a network, so raw sums are too high (24 % on this project's x86 machine; single kernels 126 %). The sum, the number
    of blocks and the physical features of `additive` are therefore weighed by non-negative least squares on whole
    networks; how much the features may correct is chosen by cross-validation, so that ten networks suffice and
    hundreds are used. Blocks that were never timed are priced by their features, fitted to the timed blocks.

    The published tables add blocks or kernels up as they are (ProxylessNAS, arXiv 1812.00332; FBNet, 1812.03443), or
    learn kernels (nn-Meter); the calibration on whole networks is ours.

    Samples of one segment are blocks, all others networks: `[probe] blocks` says how many of them are timed.

    Attributes:
        lanes: Channels of the vector unit that the features assume.
        shrinkage: Candidates for the weight that holds corrections by features down; the largest leaves only the sum,
            the number of blocks and a constant.
        folds: Parts of the cross-validation.
        min_blocks: Fewest timed blocks.
        min_samples: Fewest whole networks.
    """

    lanes: int = 16
    shrinkage: tuple[float, ...] = (1e3, 0.3, 0.1, 0.03, 0.01, 0.003)
    folds: int = 10
    min_blocks: int = 30
    min_samples: int = 8

    uses_blocks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.shrinkage or min(self.shrinkage) <= 0.0:
            raise ValueError(f"shrinkage needs values above 0, got {self.shrinkage}")
        if min(self.lanes, self.min_blocks) < 1 or self.folds < 2 or self.min_samples < 2:
            raise ValueError(f"lanes, folds and least numbers are too small: {self}")

    def fit(self, device: Device, samples: Sequence[Sample]) -> "LookupLatency":
        """Return the fitted predictor.

        Raises:
            MeasurementError: Too few blocks or networks, or samples of several origins.
        """
        check_samples(device, samples, least=self.min_samples)
        blocks = [sample for sample in samples if len(sample.workload.segments) == 1]
        networks = [sample for sample in samples if len(sample.workload.segments) > 1]
        if len(blocks) < self.min_blocks or len(networks) < self.min_samples:
            raise MeasurementError(
                f"device {device.name!r} has {len(blocks)} timed blocks and {len(networks)} timed networks, lookup "
                f"needs {self.min_blocks} and {self.min_samples}: raise `blocks` in [probe], or use the model additive"
            )
        table = _block_table(blocks, self.lanes)
        latencies = np.array([sample.latency_ms for sample in networks])
        rows = [features(sample.workload, lanes=self.lanes) for sample in networks]
        columns = sorted({column for row in rows for column in row})
        design = _design(table, networks, matrix(rows, columns))
        shrinkage, left_out = self._choose(design, latencies)
        weights = _solve(design, latencies, shrinkage)
        return LookupLatency(
            base_ms=float(weights[0]),
            block_ms=float(weights[1]),
            factor=float(weights[2]),
            corrections={
                name: float(weight) for name, weight in zip(columns, weights[3:], strict=True) if weight > 0.0
            },
            table=table,
            lanes=self.lanes,
            left_out=left_out,
            timed=timed_range(networks),
        )

    def _choose(self, design: Array, latencies: Array) -> tuple[float, Array]:
        """Return the shrinkage with the least left-out error, and those errors of every network."""
        best: tuple[float, float, Array] | None = None
        for shrinkage in self.shrinkage:
            residuals = self._left_out(design, latencies, shrinkage)
            error = float(np.abs(residuals).mean())
            if best is None or error < 0.98 * best[0]:  # a tie goes to the stronger
                best = (error, shrinkage, residuals)
        assert best is not None
        return best[1], best[2]

    def _left_out(self, design: Array, latencies: Array, shrinkage: float) -> Array:
        order = np.random.default_rng(0).permutation(len(latencies))
        residuals = np.empty(len(latencies))
        for part in np.array_split(order, min(self.folds, len(order))):
            rest = np.setdiff1d(order, part)
            predicted = np.maximum(design[part] @ _solve(design[rest], latencies[rest], shrinkage), 1e-9)
            residuals[part] = latencies[part] / predicted - 1.0
        return residuals


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTable:
    """Prices of blocks.

    Attributes:
        measured: Milliseconds of timed blocks, by `segment_key`, what any block pays for standing alone taken off.
        prices: Milliseconds per unit of a feature, for blocks that were never timed.
        lanes: Channels of the vector unit that the features assume.
    """

    measured: Mapping[str, float]
    prices: Mapping[str, float]
    lanes: int

    def segment_ms(self, segment: Segment) -> float:
        """Return the price of a block: measured, else estimated from its features."""
        known = self.measured.get(segment_key(segment))
        return self.estimate_ms(segment_features(segment, self.lanes)) if known is None else known

    def estimate_ms(self, amounts: Features) -> float:
        """Return the price that features make."""
        return sum(self.prices.get(name, 0.0) * amount for name, amount in amounts.items())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookupLatency:
    """A fitted table.

    Attributes:
        base_ms: Cost of any network.
        block_ms: Cost of every block beside its price.
        factor: What prices of blocks are multiplied by.
        corrections: Milliseconds per unit of a feature.
        table: Prices of blocks.
        lanes: Channels of the vector unit that the features assume.
        left_out: Relative error, (true - predicted) / predicted, of every network by a fit without its fold.
        timed: What the networks cover.
    """

    base_ms: float
    block_ms: float
    factor: float
    corrections: Mapping[str, float]
    table: BlockTable
    lanes: int
    left_out: Array
    timed: TimedRange
    _cache: dict[Segment, float] = field(default_factory=dict, repr=False)

    @property
    def residuals(self) -> Array:
        """The left-out errors, sorted."""
        return np.sort(self.left_out)

    def segment_ms(self, segment: Segment) -> float:
        """Return what one block adds, in milliseconds."""
        known = self._cache.get(segment)
        if known is None:
            amounts = segment_features(segment, self.lanes)
            known = self.block_ms + self.factor * self.table.segment_ms(segment)
            known += sum(self.corrections.get(name, 0.0) * amount for name, amount in amounts.items())
            self._cache[segment] = known
        return known

    def predict(self, workloads: Sequence[Workload]) -> Prediction:
        """Return latencies; networks with kernels never timed, or twice outside the timed range, are out of range."""
        means = np.array([self.base_ms + sum(map(self.segment_ms, workload.segments)) for workload in workloads])
        return Prediction(means, np.ones(len(means)), self.residuals, self.timed.holds(workloads, means))

    def unseen(self, workload: Workload) -> tuple[str, ...]:
        """Return the kernel kinds of `workload` that no network held."""
        return self.timed.unseen(workload)

    def share_measured(self, workload: Workload) -> float:
        """Return which share of a network's blocks was timed."""
        known = [segment_key(segment) in self.table.measured for segment in workload.segments]
        return sum(known) / len(known)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {
            "type": "lookup",
            "schema": SCHEMA,
            "base_ms": self.base_ms,
            "block_ms": self.block_ms,
            "factor": self.factor,
            "corrections": dict(self.corrections),
            "measured": dict(self.table.measured),
            "prices": dict(self.table.prices),
            "lanes": self.lanes,
            "left_out": [float(residual) for residual in self.left_out],
            "timed": self.timed.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LookupLatency":  # Any: JSON values
        """Read the JSON form back; raises MeasurementError for another schema."""
        if record.get("schema") != SCHEMA:
            raise MeasurementError(
                f"this latency model has schema {record.get('schema')!r}, expected {SCHEMA}: fit the device again"
            )
        lanes = int(record["lanes"])
        return cls(
            base_ms=float(record["base_ms"]),
            block_ms=float(record["block_ms"]),
            factor=float(record["factor"]),
            corrections=dict(record["corrections"]),
            table=BlockTable(measured=dict(record["measured"]), prices=dict(record["prices"]), lanes=lanes),
            lanes=lanes,
            left_out=np.asarray(record["left_out"], dtype=np.float64),
            timed=TimedRange.from_dict(record["timed"]),
        )


def segment_key(segment: Segment) -> str:
    """Return 16 hex digits that two segments share when they compute the same at the same precision."""
    return hashlib.sha256(repr(segment).encode()).hexdigest()[:16]


def _block_table(blocks: Sequence[Sample], lanes: int) -> BlockTable:
    """Return prices of timed blocks and a fit of them on features, the cost of standing alone taken off both."""
    segments = [block.workload.segments[0] for block in blocks]
    latencies = np.array([block.latency_ms for block in blocks])
    rows = [dict(segment_features(segment, lanes)) for segment in segments]
    columns = sorted({column for row in rows for column in row})
    table = matrix(rows, columns)
    weights = _relative_nnls(np.column_stack([np.ones(len(table)), table]), latencies)
    alone = float(weights[0])
    measured: dict[str, list[float]] = {}
    for segment, latency in zip(segments, latencies, strict=True):
        measured.setdefault(segment_key(segment), []).append(max(float(latency) - alone, 0.05 * float(latency)))
    return BlockTable(
        measured={key: float(np.median(values)) for key, values in measured.items()},
        prices={name: float(weight) for name, weight in zip(columns, weights[1:], strict=True) if weight > 0.0},
        lanes=lanes,
    )


def _design(table: BlockTable, networks: Sequence[Sample], amounts: Array) -> Array:
    """Return the columns constant, number of blocks, sum of prices, and every feature."""
    sums = [sum(map(table.segment_ms, sample.workload.segments)) for sample in networks]
    counts = [float(len(sample.workload.segments)) for sample in networks]
    return np.column_stack([np.ones(len(networks)), counts, sums, amounts])


def _solve(design: Array, latencies: Array, shrinkage: float) -> Array:
    """Return non-negative weights of least relative error, those of features held down by `shrinkage`."""
    relative = design / latencies[:, None]
    size = np.sqrt((relative**2).mean(axis=0))
    size[size == 0.0] = 1.0
    scaled = relative / size
    penalty = np.zeros((design.shape[1] - 3, design.shape[1]))
    penalty[:, 3:] = np.eye(design.shape[1] - 3) * shrinkage * np.sqrt(len(latencies))
    system = np.concatenate([scaled, penalty])
    target = np.concatenate([np.ones(len(latencies)), np.zeros(len(penalty))])
    solution, _ = scipy.optimize.nnls(system, target, maxiter=50 * system.shape[1])
    return np.asarray(solution / size)


def _relative_nnls(design: Array, latencies: Array) -> Array:
    scale = design.max(axis=0)
    scale[scale == 0.0] = 1.0
    solution, _ = scipy.optimize.nnls(
        design / scale / latencies[:, None], np.ones(len(latencies)), maxiter=50 * design.shape[1]
    )
    return np.asarray(solution / scale)


def _read(record: Mapping[str, Any]) -> Predictor:  # Any: JSON values
    return LookupLatency.from_dict(record)


PREDICTORS["lookup"] = _read
