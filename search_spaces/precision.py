"""Precision: the one function that sets the dtypes of a workload.

Search, memory, flash and the int8 latency models all call `with_precision`; the quantize stage decides the plan
and the exporter turns it into a file.
"""

import functools
from dataclasses import dataclass, replace
from typing import Literal

from search_spaces.fusion import fuse, fuse_segment
from search_spaces.workload import Op, Parameter, Segment, Workload

Precision = Literal["float32", "int8"]
"""What a file ships in. "int8" means 8-bit weights and activations, 32-bit biases."""

FLOAT_ONLY: frozenset[str] = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "conv_transpose", "softmax", "gelu", "silu", "tanh", "exp", "sqrt",
     "reciprocal", "div", "pow", "mean", "sum", "elementwise", "reduction", "movement"}
)  # fmt: skip
"""Kinds that runtimes compute in float within an 8-bit network.

Transposed convolutions are among them: onnxruntime has no 8-bit kernel for them, so their weights ship as floats.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationPlan:
    """How a network is quantized to 8 bits.

    Attributes:
        activation: Type of activations. onnxruntime on x86 fuses unsigned activations with signed weights; on
            Arm the faster of both is a property of the device.
        per_channel: Whether each output channel of a weight has its own scale.
        reduce_range: Whether weights use 7 bits, for x86 without VNNI where 16-bit sums would saturate.
        keep_float: Scopes of operators that stay float32.
        pad_depthwise: Whether the file's depthwise convolutions get channels of zeros up to whole vectors of
            onnxruntime's 8-bit kernel on x86. They buy time there and cost memory and weights, so devices that are no
            x86 go without: see `latency_models.int8_scheme`. Workloads are never padded; the file is.
    """

    activation: Literal["uint8", "int8"] = "uint8"
    per_channel: bool = True
    reduce_range: bool = False
    keep_float: tuple[str, ...] = ()
    pad_depthwise: bool = True


def with_precision(workload: Workload, plan: QuantizationPlan | None) -> Workload:
    """Return the fused workload with the dtypes that ship; None means float32.

    Every segment is set on its own: what crosses from one block to the next is 8 bits wide.
    """
    if plan is None:
        return fuse(workload)
    if not plan.keep_float:
        return workload.map(functools.partial(quantize_segment, plan=plan))
    segments = []
    for scope, segment in zip(workload.scopes, workload.segments, strict=True):
        prefix = f"{scope}." if scope else ""
        kept = tuple(name.removeprefix(prefix) for name in plan.keep_float if name.startswith(prefix))
        segments.append(quantize_segment(segment, replace(plan, keep_float=kept)))
    return Workload(tuple(segments), workload.scopes)


@functools.lru_cache(maxsize=65536)
def quantize_segment(segment: Segment, plan: QuantizationPlan) -> Segment:
    """Return one fused segment quantized; `plan.keep_float` names scopes within the segment."""
    fused = fuse_segment(segment)
    types: dict[int, str] = {fused.input.id: plan.activation}
    ops = []
    for op in fused.ops:
        quantized = op.kind not in FLOAT_ONLY and op.scope not in plan.keep_float
        width = plan.activation if quantized else "float32"
        outputs = tuple(
            replace(value, dtype=width if value.dtype == "float32" else value.dtype) for value in op.outputs
        )
        types.update((value.id, value.dtype) for value in outputs)
        inputs = tuple(replace(value, dtype=types[value.id]) for value in op.inputs)
        parameters = tuple(map(_quantize_parameter, op.parameters)) if quantized else op.parameters
        dtype = "int8" if quantized else "float32"
        ops.append(replace(op, inputs=inputs, outputs=outputs, parameters=parameters, dtype=dtype))
    first = replace(fused.input, dtype=plan.activation)
    return Segment(first, replace(fused.output, dtype=types[fused.output.id]), tuple(ops))


def _quantize_parameter(parameter: Parameter) -> Parameter:
    if parameter.dtype != "float32":
        return parameter
    return replace(parameter, dtype="int32" if parameter.role == "bias" else "int8")


def is_quantized(op: Op) -> bool:
    """Tell whether an operator computes in 8 bits."""
    return op.dtype == "int8"
