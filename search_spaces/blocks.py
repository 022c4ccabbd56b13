"""Blocks every family needs: convolution, pooling, MobileNet's inverted residual, classifier."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, activation, require, require_conv_fields


@BLOCKS.register("conv")
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """Convolution, batch normalization, activation: the stem and the last wide layer of mobile networks."""

    width: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    activation: str = "relu6"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, groups=self.groups)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        return ConvNorm(
            input_shape[0],
            self.width,
            self.kernel,
            stride=self.stride,
            groups=self.groups,
            activation_name=self.activation,
            eps=self.eps,
        )


@BLOCKS.register("max_pool")
@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """Maximum over windows, padded by half a window unless `padded` is false."""

    kernel: int = 3
    stride: int = 2
    padded: bool = True

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        return nn.MaxPool2d(self.kernel, self.stride, self.kernel // 2 if self.padded else 0)


@BLOCKS.register("norm_activation")
@dataclass(frozen=True, slots=True, kw_only=True)
class NormActivation:
    """Batch normalization and activation, which end networks whose blocks normalize first."""

    activation: str = "relu"
    eps: float = 1e-5

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        return nn.Sequential(nn.BatchNorm2d(input_shape[0], eps=self.eps), activation(self.activation))


@BLOCKS.register("inverted_residual")
@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual:
    """MobileNetV2's block (Sandler et al. 2018, arXiv:1801.04381), with MobileNetV3's options.

    Pointwise expansion to `hidden` channels, depthwise convolution, optional squeeze-excitation, linear pointwise
    projection to `width`; the input is added where shapes allow. Squeeze-excitation and hard-swish are those of
    MobileNetV3 (Howard et al. 2019, arXiv:1905.02244). Unlike both papers, widths are absolute.

    Attributes:
        width: Output channels.
        hidden: Channels between; equal to the input's where `expand` is false.
        kernel: Of the depthwise convolution, odd.
        stride: Of the depthwise convolution, 1 or 2.
        expand: Whether there is a pointwise expansion.
        se: Squeezed channels of squeeze-excitation; 0 for none.
        activation: After the expansion and the depthwise convolution.
        eps: Of batch normalization.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    expand: bool = True
    se: int = 0
    activation: str = "relu6"
    eps: float = 1e-5

    prunable: ClassVar[tuple[str, ...]] = ("hidden", "width")

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; raises ValueError where `expand` is false and `hidden` is not the input's width."""
        if not self.expand and input_shape[0] != self.hidden:
            raise ValueError(f"without expansion hidden must be {input_shape[0]}, got hidden={self.hidden}")
        return _InvertedResidual(input_shape[0], self)


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, block: InvertedResidual) -> None:
        super().__init__()
        hidden, options = block.hidden, {"activation_name": block.activation, "eps": block.eps}
        self.expand = ConvNorm(in_channels, hidden, **options) if block.expand else nn.Identity()  # type: ignore[arg-type]
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            block.kernel,
            stride=block.stride,
            groups=hidden,
            **options,  # type: ignore[arg-type]
        )
        self.se = SqueezeExcitation(hidden, block.se) if block.se else nn.Identity()
        self.project = ConvNorm(hidden, block.width, activation_name="none", eps=block.eps)
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


@BLOCKS.register("classifier")
@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """Global average pooling and linear layers: images in, logits out.

    Attributes:
        classes: Number of logits.
        hidden: Width of a linear layer before the last, as MobileNetV3 has; 0 for none.
        norm: Whether that layer has batch normalization in place of a bias, as MobileNetV4 has.
        activation: After that layer.
        dropout: Share of features dropped before the last layer while training.
    """

    classes: int
    hidden: int = 0
    norm: bool = False
    activation: Literal["relu", "relu6", "hard_swish", "silu"] = "hard_swish"
    dropout: float = 0.0

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require(self.classes >= 2, f"classes must be at least 2, got classes={self.classes}")
        require(self.hidden >= 0, f"hidden must be 0 or a width, got hidden={self.hidden}")
        require(0.0 <= self.dropout < 1.0, f"dropout must lie in [0, 1), got dropout={self.dropout}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the head."""
        return _Classifier(input_shape[0], self)


class _Classifier(nn.Module):
    def __init__(self, in_channels: int, block: Classifier) -> None:
        super().__init__()
        if block.hidden:
            layers = [nn.Linear(in_channels, block.hidden, bias=not block.norm), activation(block.activation)]
            if block.norm:
                layers.insert(1, nn.BatchNorm1d(block.hidden))
            self.hidden: nn.Module = nn.Sequential(*layers)
        else:
            self.hidden = nn.Identity()
        self.dropout = nn.Dropout(block.dropout) if block.dropout else nn.Identity()
        self.linear = nn.Linear(block.hidden or in_channels, block.classes)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(self.dropout(self.hidden(x_NCHW.mean((2, 3)))))
        return y
