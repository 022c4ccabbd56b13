"""MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, tables 1 and 2): the networks and their space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.rounding import multiple_of_8
from search_spaces.space import SEARCH_SPACES, Chain, ChainSpace, Choice, Option, Position, Values
from search_spaces.stages import default_strides, repeated, scaled, square, squeezed, up_to

Row = tuple[int, int, int, bool, str, int]

SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
"""Kernel, hidden, width, squeeze-excitation, activation, stride of each block."""

EPS = 1e-3
"""Of batch normalization in the authors' and torchvision's code; timm's own weights have 1e-5."""


def mobilenet_v3(
    variant: Literal["small", "large"] = "small",
    *,
    width: float = 1.0,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    stem_stride: int = 2,
    eps: float = EPS,
) -> Architecture:
    """Return MobileNetV3; at width 1 and 1000 classes 2,542,856 (small) or 5,483,032 (large) parameters.

    A stage begins where the width changes, so that stages of "large" are those of `MobileNetV3Space` and
    `OfaMobileNetV3Space`, and its weights reach their networks by name. "small" has other widths in fewer stages:
    little of it reaches them.

    Args:
        variant: Which of both networks of the paper.
        width: Factor on all channel counts.
        classes: Number of logits.
        input_shape: Channels, height, width.
        stem_stride: 2 as published; 1 for images under about 64 pixels.
        eps: Of batch normalization; 1e-5 for weights that timm trained.
    """
    rows = SMALL if variant == "small" else LARGE
    channels = multiple_of_8(16 * width)
    stages: list[tuple[Block, ...]] = []
    stage: list[Block] = [Conv(width=channels, stride=stem_stride, activation="hard_swish", eps=eps)]
    previous = 0
    for kernel, base_hidden, base_width, se, activation, stride in rows:
        if base_width != previous:
            stages.append(tuple(stage))
            stage = []
        previous = base_width
        hidden, out = multiple_of_8(base_hidden * width), multiple_of_8(base_width * width)
        expand = base_hidden != 16
        stage.append(
            InvertedResidual(
                width=out,
                hidden=hidden if expand else channels,
                kernel=kernel,
                stride=stride,
                expand=expand,
                se=multiple_of_8(hidden / 4) if se else 0,
                activation=activation,
                eps=eps,
            )
        )
        channels = out
    wide = 6 * channels
    last = multiple_of_8((1024 if variant == "small" else 1280) * width)
    head = (
        Conv(width=wide, kernel=1, activation="hard_swish", eps=eps),
        Classifier(classes=classes, hidden=last, dropout=0.2),
    )
    return Architecture(input_shape, (*stages, tuple(stage), head))


STAGES = (
    (16, 1, "relu"),
    (24, 2, "relu"),
    (40, 3, "relu"),
    (80, 4, "hard_swish"),
    (112, 2, "hard_swish"),
    (160, 3, "hard_swish"),
)
"""Width, depth and activation of the stages of MobileNetV3-large, split where the width changes."""


@SEARCH_SPACES.register("mobilenet_v3")
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetV3Space(ChainSpace):
    """MobileNetV3-large's stages with free width, depth, kernel, expansion and squeeze-excitation.

    Early stages have ReLU and late ones hard-swish, as published; the choice `activation` may replace hard-swish by
    ReLU everywhere, for runtimes where it is slow.

    Attributes:
        classes: Number of classes; a run fills it in.
        channels: Channels of an image; a run fills it in.
        resolutions: Sides of the square input, a choice where there are several.
        widths: Factors on the published width of a stage.
        kernels: Kernels of depthwise convolutions.
        expansions: Hidden channels over a block's input channels, from the second stage on.
        se: Whether squeeze-excitation is allowed, as options.
        activations: Of the late stages and the head.
        head_widths: Units of the layer before the last.
    """

    classes: int = 10
    channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    widths: tuple[float, ...] = (0.35, 0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    se: tuple[bool, ...] = (False, True)
    activations: tuple[str, ...] = ("hard_swish", "relu")
    head_widths: tuple[int, ...] = (128, 256, 640, 1280)

    @property
    def chain(self) -> Chain:
        """The stem, six stages, and the head."""
        inputs = square(self.channels, self.resolutions)
        stem, *strides = default_strides(min(self.resolutions), len(STAGES))
        late = Choice("activation", self.activations)

        def first(_shape: Shape, values: Values) -> tuple[Block, ...]:
            return (Conv(width=16, stride=stem, activation=str(values["activation"]), eps=EPS),)

        positions = [Position((late,), first)]
        for number, ((base, depth, activation), stride) in enumerate(zip(STAGES, strides, strict=True), start=1):
            options = {
                "width": scaled(base, self.widths),
                "depth": up_to(depth),
                "kernel": self.kernels,
                "expansion": self.expansions if number > 1 else (1,),
                "se": self.se,
            }
            shared = (late,) if activation == "hard_swish" else ()
            positions.append(repeated(f"stage{number}", options, stride=stride, block=_block, shared=shared))
        positions.append(Position((late, Choice("head.width", self.head_widths)), self._head))
        return Chain(inputs, tuple(positions))

    def _head(self, shape: Shape, values: Values) -> tuple[Block, ...]:
        activation: Literal["relu", "hard_swish"] = "relu" if values["activation"] == "relu" else "hard_swish"
        return (
            Conv(width=6 * shape[0], kernel=1, activation=activation, eps=EPS),
            Classifier(classes=self.classes, hidden=int(values["head.width"]), activation=activation),
        )


def _block(shape: Shape, stride: int, chosen: Mapping[str, Option]) -> Block:
    expansion = int(chosen["expansion"])
    hidden = shape[0] * expansion
    return InvertedResidual(
        width=int(chosen["width"]),
        hidden=hidden,
        kernel=int(chosen["kernel"]),
        stride=stride,
        expand=expansion > 1,
        se=squeezed(hidden) if chosen["se"] else 0,
        activation=str(chosen.get("activation", "relu")),
        eps=EPS,
    )
