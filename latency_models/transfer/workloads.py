"""This project's workloads as inputs of the few-shot method: one lowering, with fused operators."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Self

import numpy as np

from latency_models.features import kernel_kind
from latency_models.prediction import Array, Predictor
from latency_models.transfer.few_shot import Features
from latency_models.transfer.operator_prior import OperatorPrior, operator_prior
from latency_models.transfer.operators import Lowering, Operator, OperatorTable, tabulate
from latency_models.transfer.population import Population
from search_spaces.counts import op_macs
from search_spaces.fusion import activation_of, fuse_segment
from search_spaces.workload import Op, Segment, Workload

_AMOUNTS = 4
_WINDOWS = frozenset({"depthwise", "dense", "grouped", "max_pool", "avg_pool"})


@functools.lru_cache(maxsize=65536)
def segment_operators(segment: Segment) -> tuple[Operator, ...]:
    """Return the fused operators of a segment; reshapes cost nothing and are left out."""
    return tuple(_operator(op) for op in fuse_segment(segment).ops if op.kind != "reshape")


def _operator(op: Op) -> Operator:
    kind = kernel_kind(op)
    kernel = op.integers("kernel")[0] if kind in _WINDOWS else 1
    stride = op.integers("stride")[0] if kind in _WINDOWS else 1
    elements = op.output.elements
    size = min(int(math.log2(max(elements, 1))) // 2, 10)
    shape = op.output.shape
    return Operator(
        kind=kind,
        macs=float(op_macs(op)),
        input_elements=float(sum(value.elements for value in op.inputs)),
        output_elements=float(sum(value.elements for value in op.outputs)),
        weight_elements=float(sum(known.elements for known in op.parameters if not known.role.startswith("norm_"))),
        kernel_size=kernel,
        out_channels=shape[1] if len(shape) > 1 else 1,
        grouped=kind == "grouped",
        family=f"{kind}.k{kernel}.s{stride}.{activation_of(op) or 'none'}.size{size}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCounts:
    """Networks as counts of distinct operators: all that is kept of timed networks.

    Attributes:
        operators: The distinct operators.
        networks: For each network, pairs of an operator's number and how often it runs.
    """

    operators: tuple[Operator, ...]
    networks: tuple[tuple[tuple[int, float], ...], ...]

    @property
    def lowering(self) -> Lowering:
        """The same as a table."""
        counts = np.zeros((len(self.networks), len(self.operators)))
        for row, network in enumerate(self.networks):
            for number, count in network:
                counts[row, number] = count
        return Lowering(name="fused", operators=tabulate(self.operators), counts=counts)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {"operators": [list(astuple(operator)) for operator in self.operators], "networks": self.networks}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back."""
        return cls(
            operators=tuple(Operator(**dict(zip(_FIELDS, row, strict=True))) for row in record["operators"]),
            networks=tuple(tuple((int(n), float(c)) for n, c in network) for network in record["networks"]),
        )


_FIELDS = tuple(Operator.__dataclass_fields__)


def count_operators(workloads: Sequence[Workload]) -> OperatorCounts:
    """Return networks as counts of operators."""
    number: dict[Operator, int] = {}
    networks: list[tuple[tuple[int, float], ...]] = []
    for workload in workloads:
        counts: dict[int, float] = {}
        for segment in workload.segments:
            for operator in segment_operators(segment):
                index = number.setdefault(operator, len(number))
                counts[index] = counts.get(index, 0.0) + 1.0
        networks.append(tuple(counts.items()))
    return OperatorCounts(operators=tuple(number), networks=tuple(networks))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkloadInputs:
    """Turns workloads into the method's inputs, relative to the timed networks.

    Attributes:
        prior: Over operator times, the timed networks being the reference.
        context_center: Mean log amounts of the timed networks.
        context_scale: Root mean squared length of their centered log amounts.
        source_level_ms: Mean latency of the timed networks on each source device.
        sources: Models of other devices.
    """

    prior: OperatorPrior
    context_center: Array
    context_scale: float
    source_level_ms: Array
    sources: tuple[Predictor, ...]
    _rows: dict[Segment, Array] = field(default_factory=dict, repr=False)

    def __call__(self, workloads: Sequence[Workload]) -> Features:
        """Return the inputs of `n` workloads."""
        rows = [np.sum(list(map(self._row, workload.segments)), axis=0) for workload in workloads]
        totals = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.prior.center) + _AMOUNTS)
        amounts = np.log1p(totals[:, -_AMOUNTS:])
        predicted = [source.predict(workloads).mean_ms for source in self.sources]
        return Features(
            views=(self.prior.view(totals[:, :-_AMOUNTS]),),
            context=(amounts - self.context_center) / self.context_scale,
            sources=source_block(predicted, self.source_level_ms, len(workloads)),
        )

    def _row(self, segment: Segment) -> Array:
        """Return what a segment adds to the prior's rows and to the amounts."""
        known = self._rows.get(segment)
        if known is None:
            table = tabulate(segment_operators(segment))
            known = np.hstack([self.prior.rows(table), _amounts(table)]).sum(axis=0)
            self._rows[segment] = known
        return known


def inputs_of(
    counts: OperatorCounts, source_ms: Sequence[Array], sources: tuple[Predictor, ...], population: Population
) -> tuple[WorkloadInputs, Features]:
    """Return what makes inputs relative to the timed networks, and the inputs of the timed networks themselves.

    Args:
        counts: The `n` timed networks.
        source_ms: `n` latencies of them predicted for each source device.
        sources: Models of those devices.
        population: The imaginary devices.
    """
    lowering = counts.lowering
    prior = operator_prior(lowering, population)
    amounts = np.log1p(lowering.counts @ _amounts(lowering.operators))
    center = amounts.mean(axis=0)
    scale = float(np.sqrt(((amounts - center) ** 2).sum(axis=1).mean())) or 1.0
    level = np.array([float(known.mean()) for known in source_ms])
    inputs = WorkloadInputs(
        prior=prior, context_center=center, context_scale=scale, source_level_ms=level, sources=sources
    )
    features = Features(
        views=(prior.view(lowering.counts @ prior.rows(lowering.operators)),),
        context=(amounts - center) / scale,
        sources=source_block(source_ms, level, len(amounts)),
    )
    return inputs, features


def source_block(predicted_ms: Sequence[Array], level_ms: Array, count: int) -> Array:
    """Return `n x S` relative latencies minus one over the root of S."""
    if not predicted_ms:
        return np.empty((count, 0))
    return np.asarray((np.stack(predicted_ms, axis=1) / level_ms - 1.0) / np.sqrt(len(predicted_ms)))


def _amounts(table: OperatorTable) -> Array:
    """Return `U x 4`: one, MACs, elements moved and parameters of each operator."""
    elements = table.input_elements + table.output_elements
    return np.stack([np.ones(len(table)), table.macs, elements, table.weight_elements], axis=1)
