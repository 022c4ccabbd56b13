"""Once-for-All's MobileNetV3 space (Cai et al. 2020, arXiv:1908.09791, section 4.1)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.errors import SpaceError
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, square, squeezed

STAGES = (
    (24, 2, "relu", False),
    (40, 2, "relu", True),
    (80, 2, "hard_swish", False),
    (112, 1, "hard_swish", True),
    (160, 2, "hard_swish", True),
)
"""Width, stride, activation and squeeze-excitation of the five stages that are searched."""

BLOCKS_A_STAGE = 4


@SEARCH_SPACES.register("ofa_mobilenet_v3")
@dataclass(frozen=True, slots=True, kw_only=True)
class OfaMobileNetV3Space(ChainSpace):
    """Five stages of 2 to 4 inverted residuals, with kernel and expansion for each block, and the resolution.

    The public latency tables used `width=1.2`, the resolutions 128, 132, ... 224 and 1000 classes; `table_values`
    turns one of their rows into this space's choices. Unlike the authors' code the layer before the last has a bias.
    A block is a position of the chain, four make a stage of the network: the stages are those of MobileNetV3-large,
    whose published weights so reach by name every block that is no wider than theirs.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        width: Factor on all channel counts.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels over a block's input channels.
        depths: Numbers of blocks in a stage, at most 4.
        strides: Of the stem and of each stage; empty for the published ones where every resolution is at least 64,
            else for strides that leave the last stage 4 to 7 pixels a side.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (64, 80, 96)
    width: float = 1.0
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.depths or min(self.depths) < 1 or max(self.depths) > BLOCKS_A_STAGE:
            raise SpaceError(f"depths must lie within 1 to {BLOCKS_A_STAGE}, got {self.depths}")
        if self.strides and len(self.strides) != len(STAGES) + 1:
            raise SpaceError(f"strides needs one for the stem and one for each of 5 stages, got {self.strides}")

    @property
    def chain(self) -> Chain:
        """The stem, a position for each of 20 blocks, and the head."""
        first = multiple_of_8(16 * self.width)
        published = (2, *(row[1] for row in STAGES))
        small = default_strides(min(self.resolutions), len(STAGES))
        stem, *strides = self.strides or (published if min(self.resolutions) >= 64 else small)
        positions = [
            fixed(
                Conv(width=first, stride=stem, activation="hard_swish"),
                InvertedResidual(width=first, hidden=first, expand=False, activation="relu"),
            )
        ]
        for stage, (row, stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            positions.extend(self._position(stage, number, row, stride) for number in range(BLOCKS_A_STAGE))
        wide, last = multiple_of_8(960 * self.width), multiple_of_8(1280 * self.width)
        head = (
            Conv(width=wide, kernel=1, activation="hard_swish"),
            Classifier(classes=self.classes, hidden=last, dropout=0.1),
        )
        return Chain(square(self.channels, self.resolutions), (*positions, fixed(*head)))

    def decode(self, values: Values) -> Architecture:
        """Return the network, with the stages of `mobilenet_v3("large")`; raises as `ChainSpace.decode`."""
        made = ChainSpace.decode(self, values)
        (stem, first), *blocks, head = made.stages
        stages = (
            tuple(itertools.chain.from_iterable(blocks[start : start + BLOCKS_A_STAGE]))
            for start in range(0, len(blocks), BLOCKS_A_STAGE)
        )
        return Architecture(made.input_shape, ((stem,), (first,), *stages, head))

    def _position(self, stage: int, number: int, row: tuple[int, int, str, bool], stride: int) -> Position:
        base, _, activation, se = row
        depth = Choice(f"stage{stage}.depth", self.depths)
        kernel = Choice(f"stage{stage}.block{number + 1}.kernel", self.kernels)
        expansion = Choice(f"stage{stage}.block{number + 1}.expansion", self.expansions)

        def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
            if number >= int(values[depth.name]):
                return ()
            hidden = multiple_of_8(shape[0] * int(values[expansion.name]))
            made = InvertedResidual(
                width=multiple_of_8(base * self.width),
                hidden=hidden,
                kernel=int(values[kernel.name]),
                stride=1 if number else stride,
                se=squeezed(hidden) if se else 0,
                activation=activation,
            )
            return (made,)

        return Position((depth, kernel, expansion), blocks)


def table_values(
    kernel: Sequence[int], expansion: Sequence[int], depth: Sequence[int], resolution: int
) -> dict[str, Option]:
    """Return the choices that a row of the public tables means.

    Args:
        kernel: Of 20 blocks, four for each stage; those beyond a stage's depth have no effect.
        expansion: Of the same blocks.
        depth: Of five stages.
        resolution: Side of the input.
    """
    if (len(kernel), len(expansion), len(depth)) != (20, 20, 5):
        raise ValueError(
            f"a row has 20 kernels, 20 expansions and 5 depths, got {len(kernel)}, {len(expansion)}, {len(depth)}"
        )
    values: dict[str, Option] = {"resolution": int(resolution)}
    for stage in range(len(STAGES)):
        values[f"stage{stage + 1}.depth"] = int(depth[stage])
        for number in range(BLOCKS_A_STAGE):
            name = f"stage{stage + 1}.block{number + 1}"
            values[f"{name}.kernel"] = int(kernel[stage * BLOCKS_A_STAGE + number])
            values[f"{name}.expansion"] = int(expansion[stage * BLOCKS_A_STAGE + number])
    return values
