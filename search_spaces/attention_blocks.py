"""Attention over feature maps, for the late stages of hybrid networks: EfficientViT and MobileViT."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import ConvNorm, require, require_conv_fields
from search_spaces.vit_blocks import TransformerLayer

EPS = 1e-6
"""Added to the normalizer of linear attention, so that a query of zeros divides by no zero."""


@BLOCKS.register("linear_attention")
@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """EfficientViT's multi-scale linear attention (Cai et al. 2023, arXiv:2205.14756, section 3.1), with residual.

    Queries, keys and values come from a pointwise convolution and, once more for each of `scales`, from a depthwise
    and a grouped pointwise convolution of those; ReLU in place of softmax lets keys meet values first, so the cost
    grows with the number of pixels, not its square. Unlike the paper the feed-forward part is a block of its own
    (`InvertedResidual`), and the normalizer is a sum of keys in place of a column of ones beside the values.

    Attributes:
        heads: Of each scale.
        head_width: Channels of a query, key or value.
        scales: Kernels of the depthwise convolutions, odd; may be empty.
    """

    heads: int
    head_width: int = 16
    scales: tuple[int, ...] = (5,)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=1, stride=1, heads=self.heads, head_width=self.head_width)
        for kernel in self.scales:
            require_conv_fields(kernel=kernel, stride=1)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; the shape stays."""
        return _LinearAttention(input_shape[0], self)


class _LinearAttention(nn.Module):
    def __init__(self, channels: int, block: LinearAttention) -> None:
        super().__init__()
        inner = block.heads * block.head_width
        self.head_width = block.head_width
        self.qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3 * inner, 3 * inner, kernel, padding=kernel // 2, groups=3 * inner, bias=False),
                nn.Conv2d(3 * inner, 3 * inner, 1, groups=3 * block.heads, bias=False),
            )
            for kernel in block.scales
        )
        self.project = ConvNorm(inner * (1 + len(block.scales)), channels, activation_name="none")
        self.activation = nn.ReLU()

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x_NCHW.shape
        qkv = self.qkv(x_NCHW)
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.scales)], dim=1)
        # G = heads of all scales, D = head width, P = pixels
        qkv_GDP = qkv.reshape(batch, -1, 3 * self.head_width, height * width)
        query, key, value = qkv_GDP.chunk(3, dim=2)
        query, key = self.activation(query), self.activation(key)
        summary = value @ key.transpose(-1, -2)
        normalizer = key.sum(dim=-1, keepdim=True).transpose(-1, -2) @ query + EPS
        attended = ((summary @ query) / normalizer).reshape(batch, -1, height, width)
        y: torch.Tensor = self.project(attended)
        return x_NCHW + y


@BLOCKS.register("mobilevit")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileViT:
    """MobileViT's block (Mehta and Rastegari 2022, arXiv:2110.02178, figure 1b): transformer between convolutions.

    A spatial and a pointwise convolution give tokens; the map is cut into patches, and pixels at equal places of all
    patches attend to each other; a pointwise convolution leads back, and a spatial one fuses the result with the
    input. Unlike the paper, which interpolates, the sides must be multiples of `patch`.

    Attributes:
        width: Of a token.
        depth: Number of transformer layers.
        hidden: Of the layers' feed-forward part.
        heads: Of the attention; `width` is a multiple.
        patch: Side of a patch in pixels.
        kernel: Of the spatial convolutions, odd.
        activation: After the convolutions and within the feed-forward part.
    """

    width: int
    depth: int = 2
    hidden: int = 128
    heads: int = 4
    patch: int = 2
    kernel: int = 3
    activation: str = "silu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(
            kernel=self.kernel, stride=1, width=self.width, depth=self.depth, hidden=self.hidden, heads=self.heads
        )
        require(self.patch >= 1, f"patch must be at least 1 pixel, got patch={self.patch}")
        require(
            self.width % self.heads == 0,
            f"width must be a multiple of heads, got width={self.width} and heads={self.heads}",
        )

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the block; raises ValueError where a side is no multiple of `patch`. The shape stays."""
        _, height, width = input_shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"sides must be multiples of patch={self.patch}, got {height} x {width}")
        return _MobileViT(input_shape[0], self)


class _MobileViT(nn.Module):
    def __init__(self, channels: int, block: MobileViT) -> None:
        super().__init__()
        name = block.activation
        self.patch = block.patch
        self.local = nn.Sequential(
            ConvNorm(channels, channels, block.kernel, activation_name=name),
            nn.Conv2d(channels, block.width, 1, bias=False),
        )
        self.layers = nn.Sequential(
            *(TransformerLayer(block.width, block.heads, block.hidden, name) for _ in range(block.depth)),
            nn.LayerNorm(block.width),
        )
        self.back = ConvNorm(block.width, channels, activation_name=name)
        self.fuse = ConvNorm(2 * channels, channels, block.kernel, activation_name=name)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        local = self.local(x_NCHW)
        batch, channels, height, width = local.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        patches = local.reshape(batch, channels, rows, p, columns, p).permute(0, 3, 5, 2, 4, 1)
        tokens = self.layers(patches.reshape(batch * p * p, rows * columns, channels))
        patches = tokens.reshape(batch, p, p, rows, columns, channels).permute(0, 5, 3, 1, 4, 2)
        seen = self.back(patches.reshape(batch, channels, height, width))
        y: torch.Tensor = self.fuse(torch.cat((x_NCHW, seen), dim=1))
        return y
