"""Compact features: a network in about twenty numbers, for models fitted to ten measurements.

On public tables a ridge on operator counts and log MACs was the strongest model without transfer at 20 samples, above
published few-shot predictors on several device pools; one-hot choices of blocks need hundreds of samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from latency_models.features import features
from latency_models.prediction import Array
from search_spaces.workload import Workload

_LANES = 8  # padded MACs are not used here, so any number would do


def compact_features(workload: Workload) -> dict[str, float]:
    """Return the count of each kind of kernel, the depth, and logs of MACs, elements moved and parameters."""
    amounts = features(workload, lanes=_LANES)
    counts: dict[str, float] = {}
    totals = {"macs": 0.0, "elements": 0.0, "parameters": 0.0}
    for name, value in amounts.items():
        group, _, amount = name.rpartition(":")
        kind, _, detail = group.partition(".")
        if detail and not detail.startswith("k"):
            continue  # activations, strides, sizes and lanes repeat what the kernel's own group holds
        if amount == "count":
            counts[f"count.{kind}"] = counts.get(f"count.{kind}", 0.0) + value
        elif amount in totals:
            totals[amount] += value
    depth = sum(counts.values())
    return {**counts, "depth": depth, **{f"log.{name}": math.log1p(value) for name, value in totals.items()}}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standardization:
    """Columns of features with the mean and spread they had among the samples.

    Attributes:
        columns: `p` names; features under other names are ignored.
        center: `p` means.
        scale: `p` standard deviations, 1 for a constant column.
    """

    columns: tuple[str, ...]
    center: Array
    scale: Array

    def __call__(self, rows: Sequence[Mapping[str, float]]) -> Array:
        """Return `n x p` standardized features."""
        table = np.array([[row.get(column, 0.0) for column in self.columns] for row in rows], dtype=np.float64)
        return np.asarray((table.reshape(len(rows), -1) - self.center) / self.scale)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON form."""
        return {"columns": list(self.columns), "center": self.center.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Read the JSON form back."""
        return cls(
            columns=tuple(record["columns"]),
            center=np.asarray(record["center"], dtype=np.float64),
            scale=np.asarray(record["scale"], dtype=np.float64),
        )


def standardization(rows: Sequence[Mapping[str, float]]) -> Standardization:
    """Return what standardizes these rows; columns that do not vary are dropped."""
    columns = sorted({column for row in rows for column in row})
    table = np.array([[row.get(column, 0.0) for column in columns] for row in rows], dtype=np.float64)
    varies = np.ptp(table, axis=0) > 0
    return Standardization(
        columns=tuple(column for column, on in zip(columns, varies, strict=True) if on),
        center=table[:, varies].mean(axis=0),
        scale=table[:, varies].std(axis=0),
    )
