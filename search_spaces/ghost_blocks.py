"""GhostNet's blocks (Han et al. 2020, arXiv:1911.11907)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, SqueezeExcitation, require, require_conv_fields


@BLOCKS.register("ghost_conv")
@dataclass(frozen=True, slots=True, kw_only=True)
class GhostConv:
    """Ghost module (section 3.1): half of the maps by a convolution, the rest by a cheap depthwise one of those.

    As in the authors' code surplus maps are cut off where `width` is no multiple of `ratio`.

    Attributes:
        width: Output channels.
        kernel: Of the first convolution, odd.
        cheap_kernel: Of the depthwise convolution, odd.
        ratio: Output maps for each map of the first convolution, at least 2.
        activation: After both convolutions.
    """

    width: int
    kernel: int = 1
    cheap_kernel: int = 3
    ratio: int = 2
    activation: str = "relu"

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=1, width=self.width)
        require_conv_fields(kernel=self.cheap_kernel, stride=1)
        require(self.ratio >= 2, f"ratio must be at least 2, got ratio={self.ratio}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the module."""
        return GhostModule(
            input_shape[0],
            self.width,
            kernel=self.kernel,
            cheap_kernel=self.cheap_kernel,
            ratio=self.ratio,
            activation_name=self.activation,
        )


class GhostModule(nn.Module):
    """The layer behind `GhostConv` and `GhostBottleneck`."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        kernel: int = 1,
        cheap_kernel: int = 3,
        ratio: int = 2,
        activation_name: str = "relu",
    ) -> None:
        super().__init__()
        made = math.ceil(width / ratio)
        self.width = width
        self.primary = ConvNorm(in_channels, made, kernel, activation_name=activation_name)
        self.cheap = ConvNorm(made, made * (ratio - 1), cheap_kernel, groups=made, activation_name=activation_name)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the made maps and their ghosts."""
        made = self.primary(x_NCHW)
        return torch.cat((made, self.cheap(made)), dim=1)[:, : self.width]


@BLOCKS.register("ghost_bottleneck")
@dataclass(frozen=True, slots=True, kw_only=True)
class GhostBottleneck:
    """Ghost bottleneck (figure 3): two ghost modules, between them a depthwise convolution at stride 2.

    Where shapes differ the shortcut is a depthwise and a pointwise convolution, as in the authors' code. Widths are
    absolute. Stride 1 has no depthwise layer between, so `kernel` then matters only to a shortcut.

    Attributes:
        width: Output channels.
        hidden: Channels between the ghost modules.
        kernel: Of the depthwise convolutions, odd.
        stride: 1 or 2.
        se: Squeezed channels of squeeze-excitation on the hidden channels; 0 for none.
    """

    width: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    se: int = 0

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden)
        require(self.se >= 0, f"se must be 0 or a number of channels, got se={self.se}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block."""
        return _GhostBottleneck(input_shape[0], self)


class _GhostBottleneck(nn.Module):
    def __init__(self, in_channels: int, block: GhostBottleneck) -> None:
        super().__init__()

        def depthwise(channels: int) -> nn.Module:
            return ConvNorm(
                channels, channels, block.kernel, stride=block.stride, groups=channels, activation_name="none"
            )

        self.expand = GhostModule(in_channels, block.hidden)
        self.depthwise = depthwise(block.hidden) if block.stride > 1 else nn.Identity()
        self.se = SqueezeExcitation(block.hidden, block.se) if block.se else nn.Identity()
        self.project = GhostModule(block.hidden, block.width, activation_name="none")
        if block.stride == 1 and in_channels == block.width:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                depthwise(in_channels), ConvNorm(in_channels, block.width, activation_name="none")
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.se(self.depthwise(self.expand(x)))) + self.shortcut(x)
        return y
