"""Blocks with a form to train and a form to deploy: RepVGG and MobileOne.

The form to train has parallel branches with batch normalization; they are all linear, so one convolution with a
bias computes the same once training is over. `deployed` says which form a block is, and it is true by default: what
an architecture costs is what ships. `reparametrize.training_form` and `reparametrize.deploy` go from one to the
other.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import BiasedConv, ConvNorm, activation, require, require_conv_fields


@BLOCKS.register("repvgg")
@dataclass(frozen=True, slots=True, kw_only=True)
class RepVGG:
    """RepVGG's block (Ding et al. 2021, arXiv:2101.03697, section 3): one spatial convolution when deployed.

    To train it is a spatial and a pointwise convolution and, where shapes allow, the input, each normalized, summed
    and activated. Unlike the paper the kernel is free.

    Attributes:
        width: Output channels.
        kernel: Odd, at least 3.
        stride: 1 or 2.
        groups: Of the convolutions.
        activation: At the end.
        deployed: Whether it is one convolution with a bias.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    activation: str = "relu"
    deployed: bool = True

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, groups=self.groups)
        require(self.kernel >= 3, f"kernel must be at least 3, got kernel={self.kernel}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block in its form."""
        layer = BiasedConv if self.deployed else BranchedConv
        return layer(
            input_shape[0],
            self.width,
            self.kernel,
            stride=self.stride,
            groups=self.groups,
            activation_name=self.activation,
        )


@BLOCKS.register("mobileone")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileOne:
    """MobileOne's block (Vasu et al. 2023, arXiv:2206.04040, figure 3): depthwise, then pointwise when deployed.

    To train, both convolutions have `branches` parallel copies; the depthwise one also a pointwise scale; and both
    the input where shapes allow. Unlike the paper the kernel is free, and squeeze-excitation (its largest variant)
    is left out.

    Attributes:
        width: Output channels.
        kernel: Of the depthwise convolution, odd, at least 3.
        stride: Of the depthwise convolution, 1 or 2.
        branches: Parallel copies of each convolution while training, at least 1.
        activation: After both convolutions.
        deployed: Whether each convolution is one, with a bias.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    branches: int = 4
    activation: str = "relu"
    deployed: bool = True

    prunable: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=self.kernel, stride=self.stride, width=self.width, branches=self.branches)
        require(self.kernel >= 3, f"kernel must be at least 3, got kernel={self.kernel}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block in its form."""
        return _MobileOne(input_shape[0], self)


class _MobileOne(nn.Module):
    def __init__(self, in_channels: int, block: MobileOne) -> None:
        super().__init__()

        def conv(outputs: int, kernel: int, stride: int, groups: int) -> nn.Module:
            if block.deployed:
                return BiasedConv(
                    in_channels, outputs, kernel, stride=stride, groups=groups, activation_name=block.activation
                )
            return BranchedConv(
                in_channels,
                outputs,
                kernel,
                stride=stride,
                groups=groups,
                branches=block.branches,
                activation_name=block.activation,
            )

        self.depthwise = conv(in_channels, block.kernel, block.stride, in_channels)
        self.pointwise = conv(block.width, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pointwise(self.depthwise(x))
        return y


class BranchedConv(nn.Module):
    """Parallel normalized convolutions, summed and activated, that `fused` turns into one convolution.

    There are `branches` convolutions of the given kernel, a pointwise one where the kernel is larger than 1, and the
    normalized input where input and output have the same shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        branches: int = 1,
        activation_name: str = "relu",
    ) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        kernels = [kernel] * branches + ([1] if kernel > 1 else [])
        self.branches = nn.ModuleList(
            ConvNorm(in_channels, out_channels, size, stride=stride, groups=groups, activation_name="none")
            for size in kernels
        )
        keeps = stride == 1 and in_channels == out_channels
        self.skip = nn.BatchNorm2d(in_channels) if keeps else None
        self.activation = activation(activation_name)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the activated sum of all branches."""
        first, *others = self.branches
        y_NCHW: torch.Tensor = first(x_NCHW)
        for branch in others:
            y_NCHW = y_NCHW + branch(x_NCHW)
        if self.skip is not None:
            y_NCHW = y_NCHW + self.skip(x_NCHW)
        activated: torch.Tensor = self.activation(y_NCHW)
        return activated

    def fused(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight and bias of the convolution that computes the same with the running statistics."""
        branches = [branch for branch in self.branches if isinstance(branch, ConvNorm)]
        parts = [_fold(branch.conv.weight, branch.norm, self.kernel) for branch in branches]
        if self.skip is not None:
            parts.append(_fold(self._identity(), self.skip, self.kernel))
        dtype = branches[0].conv.weight.dtype
        weight = torch.stack([weight for weight, _ in parts]).sum(0)
        bias = torch.stack([bias for _, bias in parts]).sum(0)
        return weight.to(dtype), bias.to(dtype)

    def _identity(self) -> torch.Tensor:
        """Return the pointwise weight that passes every channel on."""
        assert self.skip is not None
        channels = self.skip.num_features
        inputs = channels // self.groups
        return torch.eye(inputs).repeat(self.groups, 1).reshape(channels, inputs, 1, 1)


def _fold(weight: torch.Tensor, norm: nn.BatchNorm2d, kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight, padded to `kernel`, and bias of a convolution followed by its batch normalization, in double."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    margin = (kernel - weight.shape[-1]) // 2
    padded = nn.functional.pad(weight.double(), [margin] * 4)
    return padded * factor.reshape(-1, 1, 1, 1), norm.bias.double() - norm.running_mean.double() * factor
