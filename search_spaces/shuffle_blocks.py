"""ShuffleNet's units and FBNet's grouped block: pointwise convolutions in groups, mixed by shuffles."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import (
    ConvNorm,
    SqueezeExcitation,
    activation,
    channel_shuffle,
    require,
    require_conv_fields,
)


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
                _depthwise(in_channels, unit), ConvNorm(in_channels, half, activation_name=unit.activation)
            )
        self.branch = nn.Sequential(
            ConvNorm(half if self.splits else in_channels, unit.hidden, activation_name=unit.activation),
            _depthwise(unit.hidden, unit),
            ConvNorm(unit.hidden, half, activation_name=unit.activation),
        )
        if unit.se:
            self.branch.append(SqueezeExcitation(half, unit.se))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        return channel_shuffle(torch.cat((self.bypass(left), self.branch(right)), dim=1), 2)


def _depthwise(channels: int, unit: "ShuffleUnit | GroupedShuffleUnit") -> ConvNorm:
    return ConvNorm(channels, channels, unit.kernel, stride=unit.stride, groups=channels, activation_name="none")


@BLOCKS.register("grouped_shuffle_unit")
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedShuffleUnit:
    """ShuffleNetV1's unit (Zhang et al. 2018, arXiv:1707.01083, figure 2b and c).

    Grouped pointwise convolution, shuffle, depthwise convolution, grouped pointwise convolution. Where input and
    output have the same shape the input is added; otherwise it is concatenated, average-pooled at stride 2, and
    the convolutions make only the channels that are missing. Unlike the paper that also happens at stride 1.

    Attributes:
        width: Output channels, a multiple of `groups`; more than the input's where the shape changes.
        hidden: Channels between the pointwise convolutions, a multiple of `groups`; the paper has `width` / 4.
        groups: Of the pointwise convolutions.
        group_first: Whether the first pointwise convolution is grouped; the paper's first unit has few input
            channels and does not.
        kernel: Of the depthwise convolution, odd.
        stride: 1 or 2.
        activation: After the first pointwise convolution and at the end.
    """

    width: int
    hidden: int
    groups: int = 3
    group_first: bool = True
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        require_conv_fields(
            kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden, groups=self.groups
        )
        require(
            self.width % self.groups == 0 and self.hidden % self.groups == 0,
            f"width and hidden must be multiples of groups, got {self.width=}, {self.hidden=}, {self.groups=}",
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the unit; raises ValueError where the shape changes without new channels for every group."""
        keeps = self.stride == 1 and input_shape[0] == self.width
        made = self.width if keeps else self.width - input_shape[0]
        if made < self.groups or made % self.groups or (self.group_first and input_shape[0] % self.groups):
            raise ValueError(
                f"{self.groups} groups cannot take {input_shape[0]} channels to {self.width} with {made} new ones"
            )
        return _GroupedShuffleUnit(input_shape[0], made, keeps, self)


class _GroupedShuffleUnit(nn.Module):
    def __init__(self, in_channels: int, made: int, keeps: bool, unit: GroupedShuffleUnit) -> None:
        super().__init__()
        self.keeps, self.groups = keeps, unit.groups
        self.reduce = ConvNorm(
            in_channels,
            unit.hidden,
            groups=unit.groups if unit.group_first else 1,
            activation_name=unit.activation,
        )
        self.depthwise = _depthwise(unit.hidden, unit)
        self.expand = ConvNorm(unit.hidden, made, groups=unit.groups, activation_name="none")
        self.shortcut = nn.AvgPool2d(3, 2, 1) if unit.stride > 1 else nn.Identity()
        self.activation = activation(unit.activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.expand(self.depthwise(channel_shuffle(self.reduce(x), self.groups)))
        shortcut = self.shortcut(x)
        y: torch.Tensor = self.activation(made + x if self.keeps else torch.cat((shortcut, made), dim=1))
        return y


@BLOCKS.register("grouped_inverted_residual")
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedInvertedResidual:
    """FBNet's block with grouped pointwise convolutions (Wu et al. 2019, arXiv:1812.03443, section 3.1).

    An inverted residual whose expansion and projection are grouped, with a shuffle after the expansion.

    Attributes:
        width: Output channels, a multiple of `groups`.
        hidden: Channels between, a multiple of `groups`.
        groups: Of both pointwise convolutions.
        kernel: Of the depthwise convolution, odd.
        stride: Of the depthwise convolution, 1 or 2.
        activation: After the expansion and the depthwise convolution.
    """

    width: int
    hidden: int
    groups: int = 2
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        require_conv_fields(
            kernel=self.kernel, stride=self.stride, width=self.width, hidden=self.hidden, groups=self.groups
        )
        require(
            self.width % self.groups == 0 and self.hidden % self.groups == 0,
            f"width and hidden must be multiples of groups, got {self.width=}, {self.hidden=}, {self.groups=}",
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; raises ValueError where the input's channels are no multiple of `groups`."""
        if input_shape[0] % self.groups:
            raise ValueError(f"{self.groups} groups cannot take {input_shape[0]} channels")
        return _GroupedInvertedResidual(input_shape[0], self)


class _GroupedInvertedResidual(nn.Module):
    def __init__(self, in_channels: int, block: GroupedInvertedResidual) -> None:
        super().__init__()
        hidden, name = block.hidden, block.activation
        self.groups = block.groups
        self.expand = ConvNorm(in_channels, hidden, groups=block.groups, activation_name=name)
        self.depthwise = ConvNorm(
            hidden, hidden, block.kernel, stride=block.stride, groups=hidden, activation_name=name
        )
        self.project = ConvNorm(hidden, block.width, groups=block.groups, activation_name="none")
        self.residual = block.stride == 1 and in_channels == block.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.depthwise(channel_shuffle(self.expand(x), self.groups)))
        return x + y if self.residual else y
