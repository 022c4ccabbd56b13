"""Residual blocks of ResNet and RegNet."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, activation, require, require_conv_fields


@BLOCKS.register("residual_basic")
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBasic:
    """ResNet's basic block (He et al. 2016, arXiv:1512.03385, figure 5 left): two spatial convolutions.

    The shortcut is a strided pointwise convolution where shapes differ (option B). Unlike the paper the width
    between the convolutions is free.

    Attributes:
        width: Output channels.
        hidden: Channels between both convolutions.
        kernel: Of both convolutions, odd.
        stride: Of the first convolution, 1 or 2.
        activation: After the first convolution and after the sum.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        layers = nn.Sequential(
            ConvNorm(input_shape[0], self.hidden, self.kernel, stride=self.stride, activation_name=self.activation),
            ConvNorm(self.hidden, self.width, self.kernel, activation_name="none"),
        )  # fmt: skip
        return _Residual(input_shape[0], self.width, self.stride, layers, self.activation)


@BLOCKS.register("residual_bottleneck")
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBottleneck:
    """ResNet's bottleneck block (arXiv:1512.03385, figure 5 right) and RegNet's Y block.

    With `groups` and `se` it is the Y block (Radosavovic et al. 2020, arXiv:2003.13678, figure 4): groups of
    equal width and squeeze-excitation with a sigmoid gate after the spatial convolution. The stride is in the
    spatial convolution, as in torchvision, not in the first as in the ResNet paper. Widths are absolute.

    Attributes:
        width: Output channels.
        hidden: Channels of the spatial convolution, a multiple of `groups`.
        kernel: Of the spatial convolution, odd.
        stride: Of the spatial convolution, 1 or 2.
        groups: Of the spatial convolution.
        se: Squeezed channels of squeeze-excitation; 0 for none.
        activation: After the first two convolutions and after the sum.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    se: int = 0
    activation: str = "relu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(
            kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden, groups=self.groups
        )
        require(
            self.hidden % self.groups == 0,
            f"hidden must be a multiple of groups, got hidden={self.hidden} and groups={self.groups}",
        )
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        layers = nn.Sequential(
            ConvNorm(input_shape[0], self.hidden, activation_name=self.activation),
            ConvNorm(
                self.hidden,
                self.hidden,
                self.kernel,
                stride=self.stride,
                groups=self.groups,
                activation_name=self.activation,
            ),
        )
        if self.se:
            layers.append(SqueezeExcitation(self.hidden, self.se, gate="sigmoid"))
        layers.append(ConvNorm(self.hidden, self.width, activation_name="none"))
        return _Residual(input_shape[0], self.width, self.stride, layers, self.activation)


class _Residual(nn.Module):
    def __init__(self, in_channels: int, width: int, stride: int, layers: nn.Sequential, activation_name: str) -> None:
        super().__init__()
        self.layers = layers
        if stride == 1 and in_channels == width:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = ConvNorm(in_channels, width, stride=stride, activation_name="none")
        self.activation = activation(activation_name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return y
