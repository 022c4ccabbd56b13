"""Numbers of 8 bits: how tensors and weights become them."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from latency_models.graph.weights import Array
from search_spaces.precision import QuantizationPlan

_LEVELS = 255
_LARGEST_BIAS = 2.0**31 * (1.0 - 1e-6)
"""Just within 32 bits, whatever rounding to float32 does to a scale."""


class TensorParams(NamedTuple):
    """How the bytes of one tensor are meant.

    Attributes:
        scale: Width of one step where it is written.
        zero: The byte that means 0.
        read_scale: Width of one step where it is read. It differs from `scale` for gates only, whose division by 6
            it is.
    """

    scale: np.float32
    zero: int
    read_scale: np.float32


class QuantizedWeights(NamedTuple):
    """Integers and scales of a layer's weight and bias; scales have no axis where one serves the whole tensor."""

    weight: Array
    weight_scale: Array
    bias: Array
    bias_scale: Array


@dataclass(frozen=True, slots=True)
class Scheme:
    """The arithmetic of one plan.

    Attributes:
        dtype: Of activations.
        least: Least byte of that type.
        weight_limit: Greatest integer of a weight; weights are symmetric.
        per_channel: Whether each output channel has a scale.
    """

    dtype: type[np.uint8] | type[np.int8]
    least: int
    weight_limit: int
    per_channel: bool

    @classmethod
    def of(cls, plan: QuantizationPlan) -> Self:
        """Return the arithmetic of a plan; a reduced range has 7 bits, as in onnxruntime's quantizer."""
        signed = plan.activation == "int8"
        return cls(
            np.int8 if signed else np.uint8,
            -128 if signed else 0,
            64 if plan.reduce_range else 127,
            plan.per_channel,
        )

    def params(self, low: float, high: float) -> TensorParams:
        """Return scale and zero point for values from `low` to `high`, widened to hold zero."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / _LEVELS)
        if not scale > np.finfo(np.float32).tiny:  # a tensor that is always zero
            scale = np.float32(1.0)
        zero = min(max(round(-low / float(scale)), 0), _LEVELS)
        return TensorParams(scale, zero + self.least, scale)

    @property
    def gate(self) -> TensorParams:
        """For x + 3 cut to [0, 6] by saturation; reading it as [0, 1] divides by 6: the hard sigmoid of x."""
        return TensorParams(np.float32(6 / _LEVELS), self.least, np.float32(1 / _LEVELS))

    @property
    def unit(self) -> TensorParams:
        """For values from 0 to 1."""
        return TensorParams(np.float32(1 / _LEVELS), self.least, np.float32(1 / _LEVELS))

    def quantize(self, values: Array, params: TensorParams) -> Array:
        """Return the bytes of stored values."""
        steps = np.rint(values / params.scale) + params.zero
        cut: Array = np.clip(steps, self.least, self.least + _LEVELS)
        return cut.astype(self.dtype)

    def weights(self, weight: Array, bias: Array | None, input_scale: np.float32) -> QuantizedWeights:
        """Return the integers of a layer that reads a tensor of `input_scale`.

        A bias has the product of both scales. Where it would then leave 32 bits, the weight's scale is widened.
        """
        greatest = np.abs(weight).reshape(len(weight), -1).max(1)
        shifts = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        least = np.abs(shifts) * (1.0 / (_LARGEST_BIAS * float(input_scale)))
        if not self.per_channel:
            greatest, least = np.full_like(greatest, greatest.max()), np.full_like(least, least.max())
        scales = np.maximum(greatest / self.weight_limit, least).astype(np.float32)
        scales[scales < np.finfo(np.float32).tiny] = 1.0  # filters of zeros
        bias_scales = scales * np.float32(input_scale)
        integers = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        shifted = np.rint(shifts / bias_scales).astype(np.int32)
        if not self.per_channel:
            return QuantizedWeights(integers, scales[0], shifted, bias_scales[0])
        return QuantizedWeights(integers, scales, shifted, bias_scales)
