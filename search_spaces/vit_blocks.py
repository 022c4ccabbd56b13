"""Vision transformer blocks: images to tokens, tokens to tokens, tokens to logits.

Between them a value has the shape (tokens, width), without the batch axis.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Shape
from search_spaces.layers import activation, require, require_conv_fields


@BLOCKS.register("patch_embedding")
@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEmbedding:
    """Patches as tokens, with learned positions (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1).

    Attributes:
        width: Of a token.
        patch: Side of a patch in pixels; a rest at the right and bottom is not seen.
        class_token: Whether a learned token is put before the patches.
    """

    width: int
    patch: int = 16
    class_token: bool = True

    def __post_init__(self) -> None:
        require_conv_fields(kernel=1, stride=1, width=self.width, patch=self.patch)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer; raises ValueError for images smaller than a patch."""
        channels, height, width = input_shape
        if min(height, width) < self.patch:
            raise ValueError(f"an image of {height} x {width} has no patch of {self.patch} pixels")
        return _PatchEmbedding(channels, (height // self.patch) * (width // self.patch), self)


class _PatchEmbedding(nn.Module):
    def __init__(self, channels: int, patches: int, block: PatchEmbedding) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, block.width, block.patch, block.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, block.width)) if block.class_token else None
        self.position = nn.Parameter(torch.empty(1, patches + int(block.class_token), block.width))
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x_NCHW).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat((self.class_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        y: torch.Tensor = tokens + self.position
        return y


@BLOCKS.register("transformer")
@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """A transformer encoder layer with normalization first (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1).

    Unlike the paper there is no dropout and no stochastic depth. GELU is the exact one.

    Attributes:
        hidden: Of the feed-forward part.
        heads: Of the attention; the width of a token is a multiple.
        activation: Within the feed-forward part.
    """

    hidden: int
    heads: int = 3
    activation: str = "gelu"

    prunable: ClassVar[tuple[str, ...]] = ("hidden",)

    def __post_init__(self) -> None:
        require_conv_fields(kernel=1, stride=1, hidden=self.hidden, heads=self.heads)

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the layer for tokens `(tokens, width)`; raises ValueError where heads do not divide the width."""
        if len(input_shape) != 2:
            raise ValueError(f"a transformer takes (tokens, width), got {input_shape}: put patch_embedding before it")
        return TransformerLayer(input_shape[1], self.heads, self.hidden, self.activation)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward part, each normalized first and added to its input; also within MobileViT."""

    def __init__(self, width: int, heads: int, hidden: int, activation_name: str) -> None:
        super().__init__()
        require(width % heads == 0, f"the width must be a multiple of heads, got {width=} and {heads=}")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(activation_name), nn.Linear(hidden, width))

    def forward(self, x_NTC: torch.Tensor) -> torch.Tensor:
        """Return tokens of the same shape."""
        x_NTC = x_NTC + self._attend(self.attention_norm(x_NTC))
        y_NTC: torch.Tensor = x_NTC + self.mlp(self.mlp_norm(x_NTC))
        return y_NTC

    def _attend(self, x_NTC: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x_NTC.shape
        head_width = width // self.heads
        # H = heads, D = head width
        query, key, value = (
            part.reshape(batch, tokens, self.heads, head_width).transpose(1, 2)
            for part in self.qkv(x_NTC).chunk(3, dim=-1)
        )
        scores_NHTT = (query @ key.transpose(-1, -2)) * head_width**-0.5
        attended_NHTD = scores_NHTT.softmax(dim=-1) @ value
        y: torch.Tensor = self.project(attended_NHTD.transpose(1, 2).reshape(batch, tokens, width))
        return y


@BLOCKS.register("token_classifier")
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClassifier:
    """Layer normalization, one vector for the image, linear layer: tokens in, logits out.

    Attributes:
        classes: Number of logits.
        pool: "class" takes the first token, "mean" the mean of all.
    """

    classes: int
    pool: Literal["class", "mean"] = "class"

    def __post_init__(self) -> None:
        require(self.classes >= 2, f"classes must be at least 2, got classes={self.classes}")
        require(self.pool in ("class", "mean"), f"pool must be 'class' or 'mean', got pool={self.pool!r}")

    def build(self, input_shape: Shape) -> nn.Module:
        """Return the head for tokens `(tokens, width)`."""
        if len(input_shape) != 2:
            raise ValueError(f"a token classifier takes (tokens, width), got {input_shape}")
        return _TokenClassifier(input_shape[1], self)


class _TokenClassifier(nn.Module):
    def __init__(self, width: int, block: TokenClassifier) -> None:
        super().__init__()
        self.takes_mean = block.pool == "mean"
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, block.classes)

    def forward(self, x_NTC: torch.Tensor) -> torch.Tensor:
        x_NTC = self.norm(x_NTC)
        y: torch.Tensor = self.linear(x_NTC.mean(1) if self.takes_mean else x_NTC[:, 0])
        return y
