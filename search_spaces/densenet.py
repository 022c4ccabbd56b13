"""DenseNet (Huang et al. 2017, arXiv:1608.06993, table 1)."""

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier, Conv, MaxPool, NormActivation
from search_spaces.densenet_blocks import DenseLayer, Transition

DEPTHS_121 = (6, 12, 24, 16)


def densenet(
    *,
    growth: int = 32,
    depths: tuple[int, ...] = DEPTHS_121,
    stem_width: int = 64,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return DenseNet-BC, by default DenseNet-121; with 1000 classes that has 7,978,856 parameters.

    Args:
        growth: New channels of each layer.
        depths: Layers in each dense block.
        stem_width: Output channels of the stem.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1, which also leaves out the stem's pooling, for images under about 64 pixels.
    """
    stem = Conv(width=stem_width, kernel=7 if stem_stride == 2 else 3, stride=stem_stride, activation="relu")
    stages: list[tuple[Block, ...]] = [(stem, MaxPool()) if stem_stride == 2 else (stem,)]
    channels = stem_width
    for number, depth in enumerate(depths, start=1):
        layers: tuple[Block, ...] = (DenseLayer(growth=growth, hidden=4 * growth),) * depth
        channels += depth * growth
        if number < len(depths):
            channels //= 2
            layers += (Transition(width=channels),)
        stages.append(layers)
    stages.append((NormActivation(), Classifier(classes=classes)))
    return Architecture(input_shape, tuple(stages))
