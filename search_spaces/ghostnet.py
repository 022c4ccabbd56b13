"""GhostNet (Han et al. 2020, arXiv:1911.11907, table 7): the network and its space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv
from search_spaces.ghost_blocks import GhostBottleneck
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, scaled, square, squeezed

ROWS = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1),
        (3, 480, 112, True, 1), (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)  # fmt: skip
"""Kernel, hidden, width, squeeze-excitation, stride of each block, stage by stage."""


def ghostnet(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return GhostNet; at width 1 and 1000 classes it has 5,182,840 parameters.

    Args:
        width: Factor on all channel counts but the 1280 units before the classifier.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """

    def scale(channels: int) -> int:
        return multiple_of_8(channels * width, divisor=4)

    stages: list[tuple[Block, ...]] = [(Conv(width=scale(16), stride=stem_stride, activation="relu"),)]
    for rows in ROWS:
        blocks = (
            GhostBottleneck(
                width=scale(out),
                hidden=scale(hidden),
                kernel=kernel,
                stride=stride,
                se=multiple_of_8(scale(hidden) / 4, divisor=4) if se else 0,
            )
            for kernel, hidden, out, se, stride in rows
        )
        stages.append(tuple(blocks))
    head = Classifier(classes=classes, hidden=1280, activation="relu", dropout=0.2)
    return Architecture(input_shape, (*stages, (Conv(width=scale(960), kernel=1, activation="relu"), head)))


STAGES = ((16, (1,)), (24, (1, 2)), (40, (1, 2)), (80, (1, 2, 4)), (112, (1, 2)), (160, (1, 3, 5)))
"""Published width and depths of the space's stages, split where the width changes."""


@SEARCH_SPACES.register("ghostnet")
@dataclass(frozen=True, slots=True, kw_only=True)
class GhostNetSpace(ChainSpace):
    """GhostNet's stages with free width, depth, kernel, expansion and squeeze-excitation.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on the published width of a stage.
        kernels: Kernels of depthwise convolutions at stride 2 and in shortcuts.
        expansions: Hidden channels over a block's input channels.
        se: Whether squeeze-excitation is allowed, as options.
        head_widths: Units of the layer before the last.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.5, 0.75, 1.0, 1.3)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    se: tuple[bool, ...] = (False, True)
    head_widths: tuple[int, ...] = (128, 256, 640, 1280)

    @property
    def chain(self) -> Chain:
        """The stem, six stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(STAGES))
        positions = [fixed(Conv(width=16, stride=stem, activation="relu"))]
        for number, ((base, depths), stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            options = {
                "width": scaled(base, self.widths),
                "depth": depths,
                "kernel": self.kernels,
                "expansion": self.expansions,
                "se": self.se,
            }
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(inputs, tuple(positions))

    def _head(self, shape: Shape, values: Values) -> tuple[Block, ...]:
        return (
            Conv(width=6 * shape[0], kernel=1, activation="relu"),
            Classifier(classes=self.classes, hidden=int(values["head.width"]), activation="relu"),
        )


def _block(shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    hidden = shape[0] * int(chosen["expansion"])
    return GhostBottleneck(
        width=int(chosen["width"]),
        hidden=hidden,
        kernel=int(chosen["kernel"]),
        stride=stride,
        se=squeezed(hidden) if chosen["se"] else 0,
    )
