"""MixNet's block."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, require, require_conv_fields


@BLOCKS.register("mix_conv")
@dataclass(frozen=True, slots=True, kw_only=True)
class MixConv:
    """Inverted residual whose depthwise convolution mixes kernels (Tan and Le 2019, arXiv:1907.09595).

    The hidden channels are split evenly over `kernels`, a remainder goes to the first, and each part has its own
    depthwise kernel. Unlike MixNet the pointwise layers are never grouped, widths are absolute, and
    squeeze-excitation is that of MobileNetV3.

    Attributes:
        width: Output channels.
        hidden: Channels between.
        kernels: Of the parts of the depthwise convolution, odd and different.
        stride: 1 or 2.
        se: Squeezed channels of squeeze-excitation; 0 for none.
        activation: After the expansion and the depthwise convolutions.
    """

    width: int
    hidden: int
    kernels: tuple[int, ...] = (3, 5)
    stride: int = 1
    se: int = 0
    activation: str = "relu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden", "width")

    def __post_init__(self) -> None:
        for kernel in self.kernels:
            require_conv_fields(kernel=kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(
            0 < len(self.kernels) == len(set(self.kernels)) <= self.hidden,
            f"kernels must be different and at most as many as hidden channels, got {self.kernels}",
        )
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        return _MixConv(input_shape[0], self)


class _MixConv(nn.Module):
    def __init__(self, in_channels: int, block: MixConv) -> None:
        super().__init__()
        share, rest = divmod(block.hidden, len(block.kernels))
        self.sizes = [share + rest if number == 0 else share for number in range(len(block.kernels))]
        self.expand = ConvNorm(in_channels, block.hidden, activation_name=block.activation)
        self.depthwise = nn.ModuleList(
            ConvNorm(size, size, kernel, stride=block.stride, groups=size, activation_name=block.activation)
            for size, kernel in zip(self.sizes, block.kernels, strict=True)
        )
        self.se = SqueezeExcitation(block.hidden, block.se) if block.se else nn.Identity()
        self.project = ConvNorm(block.hidden, block.width, activation_name="none")
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.expand(x).split(self.sizes, dim=1)
        mixed = torch.cat([layer(part) for layer, part in zip(self.depthwise, parts, strict=True)], dim=1)
        y: torch.Tensor = self.project(self.se(mixed))
        return x + y if self.residual else y
