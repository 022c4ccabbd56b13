"""ShuffleNetV1 (Zhang et al. 2018, arXiv:1707.01083, table 1): the network and its space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, MaxPool
from search_spaces.errors import SpaceError
from search_spaces.shuffle_blocks import GroupedShuffleUnit
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, square

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Channels of the first stage by the number of groups; each later stage has twice as many."""

DEPTHS = (4, 8, 4)


def shufflenet_v1(
    *,
    groups: int = 3,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return ShuffleNetV1; with 3 groups at width 1 and 1000 classes it has 1,865,728 parameters.

    Args:
        groups: Of the pointwise convolutions: 1, 2, 3, 4 or 8.
        width: Factor on all channel counts.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.

    Raises:
        ValueError: Another number of groups.
    """
    if groups not in WIDTHS:
        raise ValueError(f"groups must be one of {', '.join(map(str, WIDTHS))}, got {groups=}")
    stages: list[tuple[Block, ...]] = [_stem(groups, width, stem_stride, pool=True)]
    for number, depth in enumerate(DEPTHS):
        units = (
            _unit(groups, width, number, stride=1 if position else 2, first=number == position == 0)
            for position in range(depth)
        )
        stages.append(tuple(units))
    stages.append((Classifier(classes=classes),))
    return Architecture(input_shape, tuple(stages))


def _stem(groups: int, factor: float, stride: int, *, pool: bool) -> tuple[Block, ...]:
    width = max(1, round(24 * factor / groups)) * groups
    return (Conv(width=width, stride=stride, activation="relu"), *((MaxPool(),) if pool else ()))


def _unit(groups: int, factor: float, stage: int, *, stride: int, first: bool, kernel: int = 3) -> Block:
    step = 4 * groups  # so that a quarter of the width still splits into groups
    width = max(1, round(WIDTHS[groups] * factor / step)) * step * 2**stage
    return GroupedShuffleUnit(
        width=width, hidden=width // 4, groups=groups, group_first=not first, kernel=kernel, stride=stride
    )


@SEARCH_SPACES.register("shufflenet_v1")
@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleNetV1Space(ChainSpace):
    """ShuffleNetV1's three stages with a free number of groups and width, and depth and kernel by stage.

    Groups and width are one choice each for the whole network, since a unit that changes the shape must add channels
    to its input's. The stem's max pooling is there for inputs from 64 pixels on.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        groups: Numbers of groups, each 1, 2, 3, 4 or 8.
        widths: Factors on the published widths, at least 0.25.
        kernels: Kernels of depthwise convolutions.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    groups: tuple[int, ...] = (1, 2, 3, 4, 8)
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)

    def __post_init__(self) -> None:
        if not set(self.groups) <= set(WIDTHS):
            raise SpaceError(f"groups must be of {', '.join(map(str, WIDTHS))}, got {self.groups}")
        if min(self.widths) < 0.25:
            raise SpaceError(f"widths must be at least 0.25, got {self.widths}")

    @property
    def chain(self) -> Chain:
        """The stem, three stages, and the classifier."""
        inputs = square(self.channels, self.resolutions)
        pool = min(self.resolutions) >= 64
        stem, *strides = default_strides(min(self.resolutions) // (2 if pool else 1), len(DEPTHS))
        shared = (Choice("groups", self.groups), Choice("width", self.widths))

        def first(_shape: Shape, values: Values) -> tuple[Block, ...]:
            return _stem(int(values["groups"]), float(values["width"]), stem, pool=pool)

        positions = [Position(shared, first)]
        for number, (depth, stride) in enumerate(zip(DEPTHS, strides, strict=True)):

            def block(shape: Shape, stride: int, chosen: Mapping[str, Option], number: int = number) -> Block:
                return _unit(
                    int(chosen["groups"]),
                    float(chosen["width"]),
                    number,
                    stride=stride,
                    first=number == 0 and shape[0] <= 24,
                    kernel=int(chosen["kernel"]),
                )

            options = {"depth": (depth // 2, depth * 3 // 4, depth), "kernel": self.kernels}
            positions.append(repeated(f"stage{number + 1}", options, stride=stride, block=block, shared=shared))
        positions.append(fixed(Classifier(classes=self.classes)))
        return Chain(inputs, tuple(positions))
