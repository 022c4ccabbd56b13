"""ShuffleNet blocks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, channel_shuffle, require, require_conv_fields


@BLOCKS.register("shuffle_unit")
@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleUnit:
    """ShuffleNetV2's unit (Ma et al. 2018, arXiv:1807.11164, figure 3c and d).

    Where input and output have the same shape, half of the channels pass by and half go through pointwise,
    depthwise, pointwise; otherwise both halves are computed from the whole input (figure 3d, which the paper uses
    at stride 2 and we also at stride 1 where the width changes). Both halves are shuffled together. The width
    between the two pointwise layers is free here; the paper sets it to half of the output's.

    Attributes:
        width: Output channels, even.
        hidden: Channels between the pointwise convolutions.
        kernel: Of the depthwise convolutions, odd.
        stride: 1 or 2.
        se: Squeezed channels of squeeze-excitation on the computed half; 0 for none.
        activation: After the pointwise convolutions.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    se: int = 0
    activation: str = "relu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(self.width % 2 == 0, f"width must be even, got width={self.width}")
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the unit."""
        return _ShuffleUnit(input_shape[0], self)


class _ShuffleUnit(nn.Module):
    def __init__(self, in_channels: int, unit: ShuffleUnit) -> None:
        super().__init__()
        half = unit.width // 2
        self.splits = unit.stride == 1 and in_channels == unit.width
        if self.splits:
            self.bypass: nn.Module = nn.Identity()
        else:
            self.bypass = nn.Sequential(
                ConvNorm(in_channels, in_channels, unit.kernel, stride=unit.stride, groups=in_channels, activation_name="none"),
                ConvNorm(in_channels, half, activation_name=unit.activation),
            )  # fmt: skip
        self.branch = nn.Sequential(
            ConvNorm(half if self.splits else in_channels, unit.hidden, activation_name=unit.activation),
            ConvNorm(unit.hidden, unit.hidden, unit.kernel, stride=unit.stride, groups=unit.hidden, activation_name="none"),
            ConvNorm(unit.hidden, half, activation_name=unit.activation),
        )  # fmt: skip
        if unit.se:
            self.branch.append(SqueezeExcitation(half, unit.se))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        return channel_shuffle(torch.cat((self.bypass(left), self.branch(right)), dim=1), 2)
