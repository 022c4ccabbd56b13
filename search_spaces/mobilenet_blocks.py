"""MobileNet's first and fourth block; the second and third are `blocks.InvertedResidual`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, require, require_conv_fields


@BLOCKS.register("depthwise_separable")
@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseSeparable:
    """MobileNetV1's block (Howard et al. 2017, arXiv:1704.04861, figure 3): depthwise, then pointwise.

    Both convolutions have batch normalization and an activation, and nothing is added. Unlike the paper the width
    is absolute and the kernel is free.

    Attributes:
        width: Output channels.
        kernel: Of the depthwise convolution, odd.
        stride: Of the depthwise convolution, 1 or 2.
        activation: After both convolutions.
        eps: Of batch normalization.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        return _DepthwiseSeparable(input_shape[0], self)


class _DepthwiseSeparable(nn.Module):
    def __init__(self, in_channels: int, block: DepthwiseSeparable) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            in_channels,
            in_channels,
            block.kernel,
            stride=block.stride,
            groups=in_channels,
            activation_name=block.activation,
            eps=block.eps,
        )
        self.pointwise = ConvNorm(in_channels, block.width, activation_name=block.activation, eps=block.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pointwise(self.depthwise(x))
        return y


@BLOCKS.register("universal_inverted_bottleneck")
@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalInvertedBottleneck:
    """MobileNetV4's block (Qin et al. 2024, arXiv:2404.10518, section 3): two depthwise layers, both optional.

    | `start_kernel` | `kernel` | form in the paper |
    |---|---|---|
    | 0 | > 0 | inverted bottleneck of MobileNetV2 |
    | > 0 | 0 | ConvNeXt-like: depthwise before the expansion |
    | > 0 | > 0 | extra depthwise |
    | 0 | 0 | feed-forward network of a transformer |

    The fused form, where expansion and depthwise layer are one convolution, is `FusedMBConv`. Unlike the paper
    widths are absolute, and there is no layer scale.

    Attributes:
        width: Output channels.
        hidden: Channels between.
        start_kernel: Of the depthwise convolution before the expansion, which has no activation; 0 for none.
        kernel: Of the depthwise convolution after the expansion; 0 for none.
        stride: 1 or 2, taken by the second depthwise convolution, or by the first where there is no second.
        activation: After the expansion and the second depthwise convolution.
        eps: Of batch normalization.
    """

    width: int
    hidden: int
    start_kernel: int = 0
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("hidden", "width")

    def __post_init__(self) -> None:
        for kernel in (self.start_kernel or 1, self.kernel or 1):
            require_conv_fields(kernel=kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(
            self.stride == 1 or self.start_kernel > 0 or self.kernel > 0,
            f"stride {self.stride} needs a depthwise convolution, got {self.start_kernel=} and {self.kernel=}",
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        return _UniversalInvertedBottleneck(input_shape[0], self)


class _UniversalInvertedBottleneck(nn.Module):
    def __init__(self, in_channels: int, block: UniversalInvertedBottleneck) -> None:
        super().__init__()
        first_stride = 1 if block.kernel else block.stride
        self.start = _depthwise(in_channels, block.start_kernel, first_stride, "none", block.eps)
        self.expand = ConvNorm(in_channels, block.hidden, activation_name=block.activation, eps=block.eps)
        self.depthwise = _depthwise(block.hidden, block.kernel, block.stride, block.activation, block.eps)
        self.project = ConvNorm(block.hidden, block.width, activation_name="none", eps=block.eps)
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.depthwise(self.expand(self.start(x))))
        return x + y if self.residual else y


def _depthwise(channels: int, kernel: int, stride: int, activation: str, eps: float) -> nn.Module:
    if not kernel:
        return nn.Identity()
    return ConvNorm(channels, channels, kernel, stride=stride, groups=channels, activation_name=activation, eps=eps)
