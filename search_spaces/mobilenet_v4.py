"""MobileNetV4 (Qin et al. 2024, arXiv:2404.10518): the small convolutional network and a space around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv
from search_spaces.efficientnet_blocks import FusedMBConv
from search_spaces.mobilenet_blocks import UniversalInvertedBottleneck
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, fixed, repeated, scaled, square

CONVOLUTIONS = (((32, 3, 2), (32, 1, 1)), ((96, 3, 2), (64, 1, 1)))
"""Width, kernel, stride of the layers of the first two stages of the small network (table 11)."""

BOTTLENECKS = (
    ((96, 3, 5, 5, 2), (96, 2, 0, 3, 1), (96, 2, 0, 3, 1), (96, 2, 0, 3, 1), (96, 2, 0, 3, 1), (96, 4, 3, 0, 1)),
    ((128, 6, 3, 3, 2), (128, 4, 5, 5, 1), (128, 4, 0, 5, 1), (128, 3, 0, 5, 1), (128, 4, 0, 3, 1), (128, 4, 0, 3, 1)),
)  # fmt: skip
"""Width, expansion, first kernel, second kernel, stride of the blocks of its last two stages."""


def mobilenet_v4_conv_small(
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
) -> Architecture:
    """Return MobileNetV4-Conv-S; at width 1 and 1000 classes it has 3,774,024 parameters.

    Args:
        width: Factor on all channel counts but those of the head.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
    """
    channels = multiple_of_8(32 * width)
    stages: list[tuple[Block, ...]] = [(Conv(width=channels, stride=stem_stride, activation="relu"),)]
    for layers in CONVOLUTIONS:
        convolutions = (
            Conv(width=multiple_of_8(base * width), kernel=kernel, stride=stride, activation="relu")
            for base, kernel, stride in layers
        )
        stages.append(tuple(convolutions))
    channels = multiple_of_8(CONVOLUTIONS[-1][-1][0] * width)
    for rows in BOTTLENECKS:
        blocks: list[Block] = []
        for base, expansion, start_kernel, kernel, stride in rows:
            out = multiple_of_8(base * width)
            hidden = multiple_of_8(channels * expansion)
            blocks.append(
                UniversalInvertedBottleneck(
                    width=out, hidden=hidden, start_kernel=start_kernel, kernel=kernel, stride=stride
                )
            )
            channels = out
        stages.append(tuple(blocks))
    head = Classifier(classes=classes, hidden=1280, norm=True, activation="relu", dropout=0.2)
    return Architecture(input_shape, (*stages, (Conv(width=960, kernel=1, activation="relu"), head)))


Form = Literal["inverted", "extra_depthwise", "convnext", "feed_forward", "fused"]

WIDTHS = ((32, (1,)), (64, (1, 2)), (96, (2, 4, 6)), (128, (2, 4, 6)))
"""Published width and depths of the space's stages."""


@SEARCH_SPACES.register("mobilenet_v4")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetV4Space(ChainSpace):
    """Stages of MobileNetV4's universal inverted bottlenecks, each stage of one form.

    A feed-forward form cannot change the size, so the first block of such a stage at stride 2 is an inverted
    bottleneck.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        forms: Forms a stage may have.
        widths: Factors on the published width of a stage.
        kernels: Kernels of depthwise (in the fused form, full) convolutions.
        expansions: Hidden channels over a block's input channels.
        head_widths: Units of the layer before the last.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    forms: tuple[Form, ...] = ("inverted", "extra_depthwise", "convnext", "feed_forward", "fused")
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    head_widths: tuple[int, ...] = (128, 256, 640, 1280)

    @property
    def chain(self) -> Chain:
        """The stem, four stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(WIDTHS))
        positions = [fixed(Conv(width=scaled(32, self.widths)[-1], stride=stem, activation="relu"))]
        for number, ((base, depths), stride) in enumerate(zip(WIDTHS, strides, strict=True), start=1):
            options = {
                "form": self.forms,
                "width": scaled(base, self.widths),
                "depth": depths,
                "kernel": self.kernels,
                "expansion": self.expansions,
            }
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block))
        positions.append(Position((Choice("head.width", self.head_widths),), self._head))
        return Chain(inputs, tuple(positions))

    def _head(self, shape: Shape, values: Values) -> tuple[Block, ...]:
        hidden = int(values["head.width"])
        return (
            Conv(width=4 * shape[0], kernel=1, activation="relu"),
            Classifier(classes=self.classes, hidden=hidden, norm=True, activation="relu"),
        )


def _block(shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    width, kernel, form = int(chosen["width"]), int(chosen["kernel"]), chosen["form"]
    hidden = multiple_of_8(shape[0] * int(chosen["expansion"]))
    if form == "fused":
        return FusedMBConv(width=width, hidden=hidden, kernel=kernel, stride=stride, activation="relu")
    if form == "feed_forward" and stride == 2:
        form = "inverted"
    return UniversalInvertedBottleneck(
        width=width,
        hidden=hidden,
        start_kernel=kernel if form in ("extra_depthwise", "convnext") else 0,
        kernel=kernel if form in ("extra_depthwise", "inverted") else 0,
        stride=stride,
    )
