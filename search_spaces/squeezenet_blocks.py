"""SqueezeNet's blocks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import BiasedConv, ConvNorm, require, require_conv_fields


@BLOCKS.register("plain_conv")
@dataclass(frozen=True, slots=True, kw_only=True)
class PlainConv:
    """Convolution with bias and activation, without normalization: how networks before batch normalization begin.

    Attributes:
        width: Output channels.
        kernel: Odd.
        stride: 1 or 2.
        padded: Whether the input is padded by half a window; SqueezeNet's first layer is not.
        activation: After the convolution.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    padded: bool = True
    activation: str = "relu"

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        return BiasedConv(
            input_shape[0],
            self.width,
            self.kernel,
            stride=self.stride,
            activation_name=self.activation,
            padding=None if self.padded else 0,
        )


@BLOCKS.register("fire")
@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """SqueezeNet's fire module (Iandola et al. 2016, arXiv:1602.07360, section 3.2).

    A pointwise layer squeezes; a pointwise and a spatial layer expand side by side and are concatenated. Unlike the
    paper the squeeze is absolute, the spatial kernel is free, and batch normalization is possible.

    Attributes:
        squeezed: Channels of the squeeze layer.
        point_width: Output channels of the pointwise expansion.
        spatial_width: Output channels of the spatial expansion.
        kernel: Of the spatial expansion, odd.
        norm: Whether convolutions have batch normalization in place of a bias.
        residual: Whether the input is added where shapes allow (the paper's simple bypass, section 6).
    """

    squeezed: int
    point_width: int
    spatial_width: int
    kernel: int = 3
    norm: bool = False
    residual: bool = False

    prunable: ClassVar[tuple[str, ...]] = ("squeezed", "point_width", "spatial_width")

    def __post_init__(self) -> None:
        require_conv_fields(
            kernel=self.kernel,
            stride=1,
            squeezed=self.squeezed,
            point_width=self.point_width,
            spatial_width=self.spatial_width,
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the module."""
        return _Fire(input_shape[0], self)


class _Fire(nn.Module):
    def __init__(self, in_channels: int, fire: Fire) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
            if fire.norm:
                return ConvNorm(inputs, outputs, kernel, activation_name="relu")
            return BiasedConv(inputs, outputs, kernel)

        self.squeeze = conv(in_channels, fire.squeezed, 1)
        self.point = conv(fire.squeezed, fire.point_width, 1)
        self.spatial = conv(fire.squeezed, fire.spatial_width, fire.kernel)
        self.residual = fire.residual and in_channels == fire.point_width + fire.spatial_width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = self.squeeze(x)
        y = torch.cat((self.point(squeezed), self.spatial(squeezed)), dim=1)
        return x + y if self.residual else y


@BLOCKS.register("conv_classifier")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConvClassifier:
    """SqueezeNet's head: a pointwise convolution to the classes, ReLU, then global average pooling.

    Attributes:
        classes: Number of logits.
        dropout: Share of features dropped before the convolution while training.
    """

    classes: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.classes >= 2, f"classes must be at least 2, got classes={self.classes}")
        require(0.0 <= self.dropout < 1.0, f"dropout must lie in [0, 1), got dropout={self.dropout}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the head."""
        return _ConvClassifier(input_shape[0], self)


class _ConvClassifier(nn.Module):
    def __init__(self, in_channels: int, block: ConvClassifier) -> None:
        super().__init__()
        self.dropout = nn.Dropout(block.dropout) if block.dropout else nn.Identity()
        self.conv = nn.Conv2d(in_channels, block.classes, 1)
        self.activation = nn.ReLU()

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.activation(self.conv(self.dropout(x_NCHW)))
        return y.mean((2, 3))
