"""The layers that blocks share: activation, convolution with normalization, squeeze-excitation, shuffle."""

from collections.abc import Callable

import torch
from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "hard_sigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
"""Activation modules by the name blocks use."""


def activation(name: str) -> nn.Module:
    """Return a new activation module; raises ValueError for an unknown name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalization, activation; padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation_name: str = "relu6",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=eps)
        if activation_name != "none":
            self.activation = activation(activation_name)


class BiasedConv(nn.Sequential):
    """Convolution with bias and activation, without normalization; padded by half a window unless told."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation_name: str = "relu",
        padding: int | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups)
        if activation_name != "none":
            self.activation = activation(activation_name)


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al. 2018, arXiv:1709.01507) with the hard sigmoid gate of MobileNetV3.

    Args:
        channels: Of the input.
        squeezed: Of the layer between.
        gate: Activation of the gate.
        inner: Activation of the layer between.
    """

    def __init__(self, channels: int, squeezed: int, *, gate: str = "hard_sigmoid", inner: str = "relu") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.inner = activation(inner)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = activation(gate)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the input with every channel scaled by its gate."""
        pooled = x_NCHW.mean((2, 3), keepdim=True)
        gates: torch.Tensor = self.gate(self.expand(self.inner(self.reduce(pooled))))
        return x_NCHW * gates


def channel_shuffle(x_NCHW: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleave the channels of `groups` equal groups (ShuffleNet, Zhang et al. 2018, arXiv:1707.01083)."""
    if groups == 1:
        return x_NCHW
    batch, channels, height, width = x_NCHW.shape
    grouped = x_NCHW.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless the condition holds; blocks check their fields with it."""
    if not condition:
        raise ValueError(message)


def require_conv_fields(*, kernel: int, stride: int, **channels: int) -> None:
    """Check the fields most blocks have: an odd kernel, stride 1 or 2, positive channel counts."""
    require(kernel >= 1 and kernel % 2 == 1, f"kernel must be odd and positive, got {kernel=}")
    require(stride in (1, 2), f"stride must be 1 or 2, got {stride=}")
    for name, count in channels.items():
        require(count >= 1, f"{name} must be at least 1, got {name}={count}")
