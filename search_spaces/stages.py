"""What the chain families share: positions that repeat one block, widths from factors, where to halve the size."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from search_spaces.architecture import Block, Shape
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower_block
from search_spaces.rounding import multiple_of_8
from search_spaces.space import Choice, Option, Position, Values

MakeBlock = Callable[[Shape, int, Mapping[str, Option]], Block]
"""From the arriving shape, stride and the chosen options (own ones named without the stage) to one block."""


def fixed(*blocks: Block) -> Position:
    """Return a position without choices, such as a stem or a head."""
    return Position((), lambda _shape, _values: blocks)


def repeated(
    name: str,
    options: Mapping[str, Sequence[Option]],
    *,
    stride: int,
    block: MakeBlock,
    shared: Sequence[Choice] = (),
    before: Callable[[int], tuple[Block, ...]] = lambda _stride: (),
) -> Position:
    """Return a stage of `depth` blocks, the first of which has the stride.

    Args:
        name: Of the stage; its choices are called `name.option`.
        options: Of the stage, "depth" among them.
        stride: Of the first block; the others have 1.
        block: Makes one block.
        shared: Choices of the whole network that the block reads too.
        before: Blocks that come first, for families whose pooling is a layer of its own.
    """
    own = {key: Choice(f"{name}.{key}", tuple(given)) for key, given in options.items()}

    def blocks(shape: Shape, values: Values) -> tuple[Block, ...]:
        chosen = {key: values[choice.name] for key, choice in own.items()}
        chosen |= {choice.name: values[choice.name] for choice in shared}
        made = list(before(stride))
        for block_before in made:
            shape = lower_block(block_before, shape).output.shape[1:]
        for number in range(int(chosen["depth"])):
            made.append(block(shape, stride if number == 0 else 1, chosen))
            shape = lower_block(made[-1], shape).output.shape[1:]
        return tuple(made)

    return Position((*shared, *own.values()), blocks)


def scaled(base: int, factors: Iterable[float]) -> tuple[int, ...]:
    """Return `base` times each factor, rounded to multiples of 8, ascending and without repeats."""
    return tuple(sorted({multiple_of_8(base * factor) for factor in factors}))


def up_to(depth: int) -> tuple[int, ...]:
    """Return the depths 1 to `depth`, at most three of them, the largest included."""
    return tuple(sorted({1, (depth + 1) // 2, depth}))


def squeezed(channels: int) -> int:
    """Return the squeezed channels of squeeze-excitation: a quarter, in multiples of 8 (MobileNetV3)."""
    return multiple_of_8(channels / 4)


def square(channels: int, resolutions: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return the input shapes of square images; raises SpaceError for sides under 8 pixels or repeated ones."""
    if not resolutions or min(resolutions) < 8 or len(set(resolutions)) != len(resolutions):
        raise SpaceError(f"resolutions must be distinct sides of at least 8 pixels, got {tuple(resolutions)}")
    return tuple((channels, side, side) for side in resolutions)


def default_strides(side: int, stages: int) -> tuple[int, ...]:
    """Return strides of stem and stages that bring `side` pixels down to 4 to 7, the stem first.

    The stem halves first, then the stages from the second on, as in the mobile networks, and last the first stage.
    """
    halvings = 0
    while side > 7 and halvings <= stages:
        side = (side + 1) // 2
        halvings += 1
    order = itertools.chain([0], range(2, stages + 1), [1])
    strided = set(itertools.islice(order, halvings))
    return tuple(2 if number in strided else 1 for number in range(stages + 1))
