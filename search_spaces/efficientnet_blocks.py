"""EfficientNet's blocks; those of EfficientNet-lite are `blocks.InvertedResidual`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, require, require_conv_fields


@BLOCKS.register("mbconv")
@dataclass(frozen=True, slots=True, kw_only=True)
class MBConv:
    """EfficientNet's mobile inverted bottleneck (Tan and Le 2019, arXiv:1905.11946).

    An inverted residual with SiLU and squeeze-excitation whose gate is a sigmoid. Unlike the paper widths are
    absolute, padding is symmetric (as in torchvision and timm) and there is no stochastic depth.

    Attributes:
        width: Output channels.
        hidden: Channels between; equal to the input's where `expand` is false.
        kernel: Of the depthwise convolution, odd.
        stride: Of the depthwise convolution, 1 or 2.
        expand: Whether there is a pointwise expansion.
        se: Squeezed channels of squeeze-excitation, in the paper a quarter of the *input's*; 0 for none.
        activation: After the expansion, the depthwise convolution and the squeeze.
        eps: Of batch normalization.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    expand: bool = True
    se: int = 0
    activation: str = "silu"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("hidden", "width")

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; raises ValueError where `expand` is false and `hidden` is not the input's width."""
        if not self.expand and input_shape[0] != self.hidden:
            raise ValueError(f"without expansion hidden must be {input_shape[0]}, got hidden={self.hidden}")
        return _MBConv(input_shape[0], self)


class _MBConv(nn.Module):
    def __init__(self, in_channels: int, block: MBConv) -> None:
        super().__init__()
        hidden, name, eps = block.hidden, block.activation, block.eps
        self.expand = ConvNorm(in_channels, hidden, activation_name=name, eps=eps) if block.expand else nn.Identity()
        self.depthwise = ConvNorm(
            hidden, hidden, block.kernel, stride=block.stride, groups=hidden, activation_name=name, eps=eps
        )
        self.se = SqueezeExcitation(hidden, block.se, gate="sigmoid", inner=name) if block.se else nn.Identity()
        self.project = ConvNorm(hidden, block.width, activation_name="none", eps=eps)
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


@BLOCKS.register("fused_mbconv")
@dataclass(frozen=True, slots=True, kw_only=True)
class FusedMBConv:
    """EfficientNetV2's fused block (Tan and Le 2021, arXiv:2104.00298, figure 2), also MobileNetV4's fused form.

    Expansion and depthwise convolution are one full convolution, followed by a pointwise projection. As in the
    paper's networks there is no squeeze-excitation; where they leave out the projection (expansion 1), use `Conv`,
    which lacks only the residual sum.

    Attributes:
        width: Output channels.
        hidden: Channels between.
        kernel: Of the full convolution, odd.
        stride: Of the full convolution, 1 or 2.
        activation: After the full convolution.
        eps: Of batch normalization.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    activation: str = "silu"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("hidden", "width")

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        return _FusedMBConv(input_shape[0], self)


class _FusedMBConv(nn.Module):
    def __init__(self, in_channels: int, block: FusedMBConv) -> None:
        super().__init__()
        self.expand = ConvNorm(
            in_channels,
            block.hidden,
            block.kernel,
            stride=block.stride,
            activation_name=block.activation,
            eps=block.eps,
        )
        self.project = ConvNorm(block.hidden, block.width, activation_name="none", eps=block.eps)
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.expand(x))
        return x + y if self.residual else y
