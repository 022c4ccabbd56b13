"""Networks as counts of operators: the only thing the prior over latencies looks at.

A lowering says which operators a runtime executes for each of `n` networks. Tables of other people's devices leave
open which lowering a runtime follows (dead code removed or not, branches overlapped or not), so the few-shot method
takes several and lets the measurements decide; this project's own workloads have one, with fused operators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from latency_models.prediction import Array

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator with absolute shapes; equal values are the same kernel launched twice.

    Attributes:
        kind: Free label such as "dense" or "add"; imaginary devices differ by kind.
        macs: Multiply-accumulates of one execution.
        input_elements: Activations read.
        output_elements: Activations written.
        weight_elements: Parameters read.
        kernel_size: Side of the spatial window, 1 for pointwise operators.
        out_channels: Output channels; some devices work on multiples of 4, 8, 16 or 32.
        grouped: Whether it is a grouped, not depthwise, convolution.
        overlappable: Whether a runtime with several queues can hide it behind the longest path.
        elidable: Whether many runtimes remove it (identity, multiplication by zero).
        family: Operators of one family share their deviation from every imaginary device; "" for a family of its own.
    """

    kind: str
    macs: float = 0.0
    input_elements: float = 0.0
    output_elements: float = 0.0
    weight_elements: float = 0.0
    kernel_size: int = 1
    out_channels: int = 1
    grouped: bool = False
    overlappable: bool = False
    elidable: bool = False
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OperatorTable:
    """`U` operators as columns; see `Operator` for the meaning of each."""

    kind: tuple[str, ...]
    macs: Array
    input_elements: Array
    output_elements: Array
    weight_elements: Array
    kernel_size: IntArray
    out_channels: IntArray
    grouped: BoolArray
    overlappable: BoolArray
    elidable: BoolArray
    family: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lowering:
    """What one kind of runtime executes.

    Attributes:
        name: For reports, such as "as_written".
        operators: The `U` distinct operators.
        counts: `n x U` executions of each operator in one inference of each network.
    """

    name: str
    operators: OperatorTable
    counts: Array

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.shape[1] != len(self.operators):
            raise ValueError(
                f"counts of lowering {self.name!r} have shape {self.counts.shape}, expected (n, {len(self.operators)})"
            )


def tabulate(operators: Sequence[Operator]) -> OperatorTable:
    """Return operators as columns, in the order given; an operator without a family becomes its own."""
    columns = {field.name: [getattr(operator, field.name) for operator in operators] for field in fields(Operator)}

    def numbers(name: str) -> Array:
        return np.asarray(columns[name], dtype=np.float64)

    return OperatorTable(
        kind=tuple(columns["kind"]),
        macs=numbers("macs"),
        input_elements=numbers("input_elements"),
        output_elements=numbers("output_elements"),
        weight_elements=numbers("weight_elements"),
        kernel_size=np.asarray(columns["kernel_size"], dtype=np.int64),
        out_channels=np.asarray(columns["out_channels"], dtype=np.int64),
        grouped=np.asarray(columns["grouped"], dtype=np.bool_),
        overlappable=np.asarray(columns["overlappable"], dtype=np.bool_),
        elidable=np.asarray(columns["elidable"], dtype=np.bool_),
        family=tuple(operator.family or repr(operator) for operator in operators),
    )
