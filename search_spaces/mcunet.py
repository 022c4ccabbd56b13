"""MCUNet (Lin et al. 2020, arXiv:2007.10319): the published ImageNet networks and the space they come from."""

from dataclasses import dataclass

import numpy as np

from search_spaces import counts, memory
from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.precision import QuantizationPlan, quantize_segment
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Position, Values, sample
from search_spaces.stages import default_strides, square
from search_spaces.tables import CostTables, Price
from search_spaces.workload import Segment

Row = tuple[int, int, int, int]

NETWORKS: dict[str, tuple[int, int, tuple[Row, ...]]] = {
    "in0": (48, 24, (
        (16, 24, 3, 1), (16, 64, 5, 2), (16, 48, 3, 1), (16, 64, 3, 1), (24, 80, 7, 2), (24, 96, 5, 1),
        (24, 120, 5, 1), (48, 120, 7, 2), (48, 192, 5, 1), (56, 240, 3, 1), (56, 224, 5, 1), (56, 280, 3, 1),
        (112, 336, 3, 2), (112, 448, 5, 1), (192, 672, 3, 1),
    )),
    "in1": (96, 16, (
        (8, 16, 3, 1), (16, 32, 3, 2), (16, 48, 3, 1), (24, 48, 7, 2), (24, 120, 3, 1), (40, 120, 3, 2),
        (40, 160, 7, 1), (48, 160, 5, 1), (48, 144, 3, 1), (48, 192, 3, 1), (96, 240, 7, 2), (96, 384, 5, 1),
        (96, 384, 5, 1), (160, 576, 3, 1),
    )),
    "in2": (160, 16, (
        (8, 16, 3, 1), (16, 24, 5, 2), (16, 96, 7, 1), (16, 80, 3, 1), (16, 80, 5, 1), (24, 80, 3, 2),
        (24, 144, 7, 1), (24, 144, 5, 1), (40, 96, 7, 2), (40, 200, 5, 1), (48, 200, 3, 1), (48, 240, 5, 1),
        (48, 192, 3, 1), (96, 288, 5, 2), (96, 384, 5, 1), (96, 288, 5, 1), (96, 384, 3, 1), (160, 480, 5, 1),
    )),
    "in3": (176, 16, (
        (8, 16, 3, 1), (16, 24, 7, 2), (16, 80, 3, 1), (16, 80, 7, 1), (16, 64, 5, 1), (24, 80, 5, 2),
        (24, 120, 5, 1), (24, 120, 5, 1), (40, 120, 3, 2), (40, 240, 7, 1), (40, 160, 5, 1), (48, 200, 5, 1),
        (48, 240, 7, 1), (48, 240, 3, 1), (96, 288, 3, 2), (96, 480, 7, 1), (96, 384, 3, 1), (160, 480, 7, 1),
    )),
    "in4": (160, 32, (
        (16, 32, 3, 1), (24, 48, 7, 2), (24, 120, 3, 1), (24, 96, 5, 1), (40, 120, 7, 2), (40, 160, 3, 1),
        (40, 160, 7, 1), (80, 120, 7, 2), (80, 240, 3, 1), (80, 240, 7, 1), (96, 320, 3, 1), (96, 288, 5, 1),
        (96, 288, 5, 1), (192, 384, 7, 2), (192, 576, 7, 1), (192, 576, 5, 1), (320, 768, 5, 1),
    )),
}  # fmt: skip
"""Side of the input, stem width, and width, hidden, kernel, stride of every block; the first has no expansion."""


def mcunet(
    variant: str = "in2", *, classes: int = 1000, input_shape: tuple[int, int, int] | None = None
) -> Architecture:
    """Return one of the published networks for microcontrollers.

    Args:
        variant: "in0" to "in4".
        classes: Number of logits.
        input_shape: Channels, height, width; None for the variant's own.

    Raises:
        ValueError: Another variant.
    """
    if variant not in NETWORKS:
        raise ValueError(f"variant must be one of {', '.join(NETWORKS)}, got {variant!r}")
    side, stem, rows = NETWORKS[variant]
    stages: list[tuple[Block, ...]] = [(Conv(width=stem, stride=2),)]
    stage: list[Block] = []
    for number, (width, hidden, kernel, stride) in enumerate(rows):
        if stride == 2:
            stages.append(tuple(stage))
            stage = []
        stage.append(InvertedResidual(width=width, hidden=hidden, kernel=kernel, stride=stride, expand=number > 0))
    stages += [tuple(stage), (Classifier(classes=classes),)]
    return Architecture(input_shape or (3, side, side), tuple(stages))


STAGES = ((24, 3), (40, 3), (80, 3), (96, 3), (192, 3), (320, 1))
"""Width at factor 1 and number of blocks of the searched stages."""

STRIDES = (2, 2, 2, 2, 1, 2, 1)
"""Of the stem and of each searched stage, as in the published networks."""


@SEARCH_SPACES.register("mcunet")
@dataclass(frozen=True, slots=True, kw_only=True)
class MCUNetSpace(ChainSpace):
    """TinyNAS's space: one resolution and one width for the network; kernel and expansion block by block.

    Strides are the published ones from 48 pixels on, and gentler for smaller images. What fits the memory is mostly
    decided by resolution and width. `rank_subspaces` orders the pairs as the paper does, and `nas check` prints the
    best under the device's limits; unlike the paper a run then searches all pairs, unless `resolutions` and `widths`
    are set to those. Unlike the paper's code depth 1 is possible.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on all channel counts; the paper has 0.2 to 1.0 in steps of 0.1.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels over a block's input channels.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (48, 64, 80, 96, 112)
    widths: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 5, 6)

    @property
    def chain(self) -> Chain:
        """The stem with its block, a position for each further block, and the classifier."""
        inputs = square(self.channels, self.resolutions)
        small = default_strides(min(self.resolutions), len(STAGES) - 1)
        stem, *strides = STRIDES if min(self.resolutions) >= 48 else (*small, 1)
        width = Choice("width", self.widths)

        def first(_shape: Shape, values: Values) -> tuple[Block, ...]:
            wide = multiple_of_8(32 * float(values["width"]))
            narrow = multiple_of_8(16 * float(values["width"]))
            return (Conv(width=wide, stride=stem), InvertedResidual(width=narrow, hidden=wide, expand=False))

        positions = [Position((width,), first)]
        for number, ((base, blocks), stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            depth = Choice(f"stage{number}.depth", tuple(range(1, blocks + 1)))
            positions.extend(self._position(number, place, base, stride, width, depth) for place in range(blocks))
        classifier = Classifier(classes=self.classes)
        positions.append(Position((), lambda _shape, _values: (classifier,)))
        return Chain(inputs, tuple(positions))

    def _position(self, stage: int, place: int, base: int, stride: int, width: Choice, depth: Choice) -> Position:
        kernel = Choice(f"stage{stage}.block{place + 1}.kernel", self.kernels)
        expansion = Choice(f"stage{stage}.block{place + 1}.expansion", self.expansions)

        def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
            if place >= int(values[depth.name]):
                return ()
            made = InvertedResidual(
                width=multiple_of_8(base * float(values["width"])),
                hidden=multiple_of_8(shape[0] * int(values[expansion.name])),
                kernel=int(values[kernel.name]),
                stride=1 if place else stride,
            )
            return (made,)

        return Position((width, depth, kernel, expansion), blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subspace:
    """What is known of the networks with one resolution and width.

    Attributes:
        resolution: Side of the input.
        width: Factor on all channel counts.
        fitting: Share of the sampled networks that fit, 0 to 1.
        mean_macs: Mean MACs of those that fit; 0 where none does.
    """

    resolution: int
    width: float
    fitting: float
    mean_macs: float


def rank_subspaces(
    space: MCUNetSpace,
    *,
    peak_limit_bytes: int,
    weight_limit_bytes: int,
    plan: QuantizationPlan | None,
    rng: np.random.Generator,
    count: int = 200,
) -> tuple[Subspace, ...]:
    """Return every pair of resolution and width, best first: the most MACs among the networks that fit.

    TinyNAS's first stage (section 3.1 of the paper): where fitting networks have more MACs, the accuracy reached is
    higher. Peak memory is the liveness bound, which the paper computed layer by layer.

    Args:
        space: Whose pairs are compared.
        peak_limit_bytes: Memory for activations.
        weight_limit_bytes: Memory for weights.
        plan: How networks are quantized; None for float32.
        rng: Where randomness comes from.
        count: Networks sampled from each pair.
    """

    def shipped(segment: Segment) -> Segment:
        return quantize_segment(segment, plan) if plan else segment

    tables = CostTables(
        space,
        {
            "macs": Price(counts.segment_macs),
            "weights": Price(lambda segment: counts.segment_weight_bytes(shipped(segment))),
            "peak": Price(lambda segment: memory.segment_peak_bytes(shipped(segment)), "max"),
        },
    )
    names = [choice.name for choice in space.choices]
    rows = sample(space, count, rng)
    found = []
    for width_number, width in enumerate(space.widths):
        for side_number, side in enumerate(space.resolutions):
            rows[:, names.index("width")] = width_number
            if "resolution" in names:
                rows[:, names.index("resolution")] = side_number
            costs = tables(rows)
            fits = (costs["peak"] <= peak_limit_bytes) & (costs["weights"] <= weight_limit_bytes)
            mean = float(costs["macs"][fits].mean()) if fits.any() else 0.0
            found.append(Subspace(resolution=side, width=width, fitting=float(fits.mean()), mean_macs=mean))
    return tuple(sorted(found, key=lambda pair: -pair.mean_macs))
