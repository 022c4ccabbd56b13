"""DenseNet's blocks (Huang et al. 2017, arXiv:1608.06993)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import require_conv_fields


@BLOCKS.register("dense_layer")
@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """One bottleneck layer of a dense block (DenseNet-B): its new channels are concatenated to its input.

    Normalization and ReLU stand before each convolution. The concatenation copies its input, layer by layer, as
    runtimes without shared storage do; the paper's memory figures assume shared storage.

    Attributes:
        growth: New channels.
        hidden: Channels of the pointwise convolution before; the paper has four times `growth`.
        kernel: Of the second convolution, odd.
    """

    growth: int
    hidden: int
    kernel: int = 3

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=1, growth=self.growth, hidden=self.hidden)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        return _DenseLayer(input_shape[0], self)


class _DenseLayer(nn.Module):
    def __init__(self, in_channels: int, block: DenseLayer) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _NormConv(in_channels, block.hidden, 1), _NormConv(block.hidden, block.growth, block.kernel)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.layers(x)), dim=1)


@BLOCKS.register("transition")
@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What stands between dense blocks: normalization, ReLU, pointwise convolution, average pooling by 2.

    Attributes:
        width: Output channels; the paper has half of the input's.
        pool: Whether the size is halved; the paper always does.
    """

    width: int
    pool: bool = True

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=1, stride=1, width=self.width)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer."""
        pool = nn.AvgPool2d(2) if self.pool else nn.Identity()
        return nn.Sequential(_NormConv(input_shape[0], self.width, 1), pool)


class _NormConv(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
