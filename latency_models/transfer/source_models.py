"""Models of devices whose tables of hundreds of networks are known: fitted once, before any target is seen."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_models.prediction import Array
from latency_models.transfer.operator_prior import View
from latency_models.transfer.operators import IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceTable:
    """Measurements of one known device.

    Attributes:
        name: Of the device.
        index: `m` rows of the features that were measured, hundreds.
        latency_ms: `m` positive latencies.
    """

    name: str
    index: IntArray
    latency_ms: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Settings among which each source picks the most likely; see `few_shot.FewShotOptions` for their units."""

    base_variance: float = 10.0
    physical_variance: float = 1.0
    additive_variance: tuple[float, ...] = (1e-2, 1e-1)
    context_variance: tuple[float, ...] = (1e-4, 1e-3)
    noise_variance: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    degrees_of_freedom: float = 4.0
    robust_iterations: int = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceModels:
    """Linear models of `S` devices, in relative latency minus one.

    Attributes:
        names: `S` device names.
        lowering: `S` indices of the lowering each device follows.
        weights: For each device, weights of the base, direction, additive and context features.
        level: `S` mean predictions over the reference networks, the unit of the shapes.
    """

    names: tuple[str, ...]
    lowering: tuple[int, ...]
    weights: tuple[Array, ...]
    level: Array


def fit_sources(
    views: Sequence[View], context: Array, tables: Sequence[SourceTable], options: SourceOptions | None = None
) -> SourceModels:
    """Fit one linear model for each source device.

    Args:
        views: Networks under each lowering.
        context: `n x p` context features of the same networks.
        tables: Measurements, their `index` pointing into the rows of `views`.
        options: The settings.
    """
    options = options or SourceOptions()
    chosen: list[tuple[int, Array]] = [(0, np.empty(0))] * len(tables)
    groups: dict[bytes, list[int]] = {}
    for position, table in enumerate(tables):
        groups.setdefault(table.index.tobytes(), []).append(position)
    for members in groups.values():
        index = tables[members[0]].index
        targets = np.stack([tables[j].latency_ms / np.median(tables[j].latency_ms) - 1.0 for j in members], axis=1)
        fitted = _fit_group([_design(view, context, index) for view in views], views, context, targets, options)
        for j, result in zip(members, fitted, strict=True):
            chosen[j] = result
    everything = {number: _design(views[number], context) for number, _ in chosen}
    return SourceModels(
        names=tuple(table.name for table in tables),
        lowering=tuple(number for number, _ in chosen),
        weights=tuple(weights for _, weights in chosen),
        level=np.asarray([1.0 + float((everything[number] @ weights).mean()) for number, weights in chosen]),
    )


def source_shapes(sources: SourceModels, views: Sequence[View], context: Array) -> Array:
    """Return `n x S` predicted relative latencies minus one, divided by the square root of `S`."""
    designs = {number: _design(views[number], context) for number in set(sources.lowering)}
    columns = [designs[number] @ weights for number, weights in zip(sources.lowering, sources.weights, strict=True)]
    shapes = (1.0 + np.stack(columns, axis=1)) / sources.level - 1.0
    return np.asarray(shapes / np.sqrt(len(columns)))


def _design(view: View, context: Array, index: IntArray | slice = slice(None)) -> Array:
    """Return all feature blocks side by side: one, mean, directions, additive, context."""
    one = np.ones((len(context[index]), 1))
    return np.hstack([one, view.mean[index], view.directions[index], view.additive[index], context[index]])


def _fit_group(
    designs: Sequence[Array], views: Sequence[View], context: Array, targets: Array, o: SourceOptions
) -> list[tuple[int, Array]]:
    """Pick a setting for each column of `targets` by evidence, then refit it with outliers weighted down."""
    best: list[tuple[float, int, Array, float]] = [(-np.inf, 0, np.empty(0), 0.0)] * targets.shape[1]
    for number, additive, other in itertools.product(range(len(views)), o.additive_variance, o.context_variance):
        blocks = (2, views[number].directions.shape[1], views[number].additive.shape[1], context.shape[1])
        prior = np.repeat([o.base_variance, o.physical_variance, additive, other], blocks)
        values, vectors = np.linalg.eigh((designs[number] * prior) @ designs[number].T)
        rotated = (vectors.T @ targets) ** 2
        for noise in o.noise_variance:
            total = np.maximum(values, 0.0) + noise
            evidence = -0.5 * (rotated / total[:, None]).sum(axis=0) - 0.5 * np.log(total).sum()
            for j in np.flatnonzero(evidence > [known[0] for known in best]):
                best[j] = (float(evidence[j]), number, prior, noise)
    return [
        (number, _robust_weights(designs[number], prior, noise, targets[:, j], o))
        for j, (_, number, prior, noise) in enumerate(best)
    ]


def _robust_weights(design: Array, prior: Array, noise: float, target: Array, o: SourceOptions) -> Array:
    """Return weights of the linear model under Student-t noise, by iterated re-weighting."""
    reliability = np.ones(len(target))
    weights: Array = np.zeros(design.shape[1])
    for _ in range(o.robust_iterations):
        scaled = design * (reliability / noise)[:, None]
        weights = np.asarray(np.linalg.solve(design.T @ scaled + np.diag(1.0 / prior), scaled.T @ target))
        error = (target - design @ weights) ** 2 / noise
        reliability = (o.degrees_of_freedom + 1.0) / (o.degrees_of_freedom + error)
    return weights
