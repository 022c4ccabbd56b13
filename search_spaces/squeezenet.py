"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360): version 1.1 of the authors' code, and a space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Conv, MaxPool
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Option
from search_spaces.squeezenet_blocks import ConvClassifier, Fire, PlainConv
from search_spaces.stages import default_strides, fixed, repeated, scaled, square

STAGES = (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256)))
"""Squeeze and expansion channels of the fire modules of version 1.1, between max pools."""


def squeezenet(
    *, classes: int = 1000, input_shape: tuple[int, int, int] = (3, 224, 224), dropout: float = 0.5
) -> Architecture:
    """Return SqueezeNet 1.1; with 1000 classes it has 1,235,496 parameters.

    Stem and pools are not padded, as published. The authors' pools round sizes up; ours round down, which at sides
    such as 224 is the same.

    Args:
        classes: Number of logits.
        input_shape: Channels, height, width.
        dropout: Before the last convolution.
    """
    pool = MaxPool(padded=False)
    stages: list[tuple[Block, ...]] = [(PlainConv(width=64, stride=2, padded=False),)]
    for rows in STAGES:
        fires = (Fire(squeezed=squeezed, point_width=half, spatial_width=half) for squeezed, half in rows)
        stages.append((pool, *fires))
    stages.append((ConvClassifier(classes=classes, dropout=dropout),))
    return Architecture(input_shape, tuple(stages))


WIDTHS = (128, 256, 384, 512)
"""Output channels of the space's stages at factor 1: the widths that occur in the published network."""


@SEARCH_SPACES.register("squeezenet")
@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeNetSpace(ChainSpace):
    """Stages of fire modules with free squeeze, width, depth, kernel and bypass.

    Unlike the published network convolutions are normalized and padded, and a stage at stride 2 begins with a max
    pool.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on 128, 256, 384 and 512 output channels.
        squeezes: Squeeze channels over output channels; 0.125 as published.
        kernels: Of the spatial expansions.
        residual: Whether a bypass is allowed, as options.
        depths: Fire modules in a stage.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    squeezes: tuple[float, ...] = (0.125, 0.25, 0.5)
    kernels: tuple[int, ...] = (3, 5)
    residual: tuple[bool, ...] = (False, True)
    depths: tuple[int, ...] = (1, 2, 3)

    @property
    def chain(self) -> Chain:
        """The stem, four stages, and the convolutional classifier."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(WIDTHS))
        positions = [fixed(Conv(width=scaled(64, self.widths)[-1], stride=stem, activation="relu"))]
        for number, (base, stride) in enumerate(zip(WIDTHS, strides, strict=True), start=1):
            options = {
                "width": scaled(base, self.widths),
                "depth": self.depths,
                "squeeze": self.squeezes,
                "kernel": self.kernels,
                "residual": self.residual,
            }
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_fire, before=_pool))
        positions.append(fixed(ConvClassifier(classes=self.classes)))
        return Chain(inputs, tuple(positions))


def _pool(stride: int) -> tuple[Block, ...]:
    return (MaxPool(),) if stride == 2 else ()


def _fire(_shape: Shape, _stride: int, chosen: Mapping[str, Option]) -> Block:
    width = int(chosen["width"])
    return Fire(
        squeezed=multiple_of_8(width * float(chosen["squeeze"])),
        point_width=width // 2,
        spatial_width=width // 2,
        kernel=int(chosen["kernel"]),
        norm=True,
        residual=bool(chosen["residual"]),
    )
