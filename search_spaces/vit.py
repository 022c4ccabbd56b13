"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

from search_spaces.architecture import Architecture
from search_spaces.vit_blocks import PatchEmbedding, TokenClassifier, Transformer


def vit(
    *,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    patch: int = 16,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
) -> Architecture:
    """Return a vision transformer, by default DeiT-tiny (Touvron et al. 2021, arXiv:2012.12877): 5,717,416 parameters.

    Args:
        width: Of a token.
        depth: Number of transformer layers.
        heads: Of the attention.
        patch: Side of a patch in pixels.
        classes: Number of logits.
        input_shape: Channels, height, width.
    """
    layers = (Transformer(hidden=4 * width, heads=heads),) * depth
    stages = ((PatchEmbedding(width=width, patch=patch),), layers, (TokenClassifier(classes=classes),))
    return Architecture(input_shape, stages)
