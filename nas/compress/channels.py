"""Groups of channels that can only change together, found by building blocks without data.

No graph is traced. A block says which of its fields count channels (`prunable`); lowering such a field on the
meta device and comparing shapes tells which axes of which tensors it governs. Where the block's output
changes, the next block is tried as it is, then with its own prunable fields of the same size lowered too,
until one combination leaves every block's operators as they were: that is how the two ends of a residual
addition, or a block without expansion, join the group. A change no combination allows (a ShuffleNet unit
hands half of its input on as it is) is refused, with the reason.

What shapes cannot show, the order of channels inside a tensor, is checked by numbers: see `verified`.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from search_spaces.architecture import BLOCKS, Architecture, Block, Shape
from search_spaces.build import Network, build
from search_spaces.errors import LoweringError, SpaceError
from search_spaces.lowering import lower, lower_block
from search_spaces.workload import Segment

Place = tuple[int, int]
"""Numbers of a stage and of a block in it."""

Structure = tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

TOLERANCE = 1e-4
"""Largest difference between pruned and masked network, as a share of the largest logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One axis of one tensor, as long as its group has channels.

    Attributes:
        name: Of the tensor in the network's state dict.
        axis: 0 where the tensor makes or scales the channels; 1 or more where it reads them.
    """

    name: str
    axis: int

    @property
    def reads(self) -> bool:
        """Whether the tensor is a weight that takes the channels as input."""
        return self.axis >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Channels that are removed together.

    Attributes:
        name: Place and field it was found by, such as "stages.2.0.hidden".
        size: Number of channels in the architecture it was found in.
        fields: Stage, block and field of every field that holds this number.
        members: Every axis of every tensor that is that long because of them.
    """

    name: str
    size: int
    fields: tuple[tuple[int, int, str], ...]
    members: tuple[Member, ...]


def find_groups(architecture: Architecture, *, alignment: int) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Return all groups of an architecture that can lose channels, and a sentence for each field that cannot.

    Args:
        architecture: The network.
        alignment: Channels are to stay multiples of it; groups not larger than that are no groups.
    """
    groups: list[Group] = []
    refused: dict[tuple[int, int, str], str] = {}
    for place, block in _blocks(architecture):
        for name in _prunable(block):
            seed = (*place, name)
            size = getattr(block, name)
            if size <= alignment or any(seed in group.fields for group in groups):
                continue
            found = _find_group(architecture, seed, size, alignment)
            if isinstance(found, Group):
                groups.append(found)
            else:
                refused[seed] = found
    covered = {field for group in groups for field in group.fields}
    reasons = [f"{_named(*seed)}: {reason}" for seed, reason in refused.items() if seed not in covered]
    return tuple(groups), (*reasons, *_fixed_outputs(architecture))


def with_size(architecture: Architecture, group: Group, size: int) -> Architecture | None:
    """Return the architecture with a group of another size; None where that would change more than widths.

    A width that happens to equal the next one's would, for example, turn a plain block into a residual one.
    """
    changed = _with_fields(architecture, dict.fromkeys(group.fields, size))
    try:
        before, after = lower(architecture), lower(changed)
    except LoweringError:
        return None
    if before.output.shape != after.output.shape:
        return None
    pairs = zip(before.segments, after.segments, strict=True)
    return changed if all(_structure(one) == _structure(other) for one, other in pairs) else None


def cut(
    architecture: Architecture, state: Mapping[str, torch.Tensor], kept: Mapping[Group, Sequence[int]]
) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """Return architecture and weights with only the kept channels of each group; the arguments stay.

    Args:
        architecture: The network in which the groups were found.
        state: Its state dict.
        kept: Numbers of the channels that stay, increasing, for the groups that lose some.

    Raises:
        SpaceError: A group cannot have that size.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
    for group, channels in kept.items():
        smaller = with_size(architecture, group, len(channels))
        if smaller is None:
            raise SpaceError(f"{group.name} cannot have {len(channels)} channels: other operators would follow")
        architecture = smaller
        index = torch.tensor(list(channels), dtype=torch.int64)
        for member in group.members:
            tensor = tensors[member.name]
            tensors[member.name] = tensor.index_select(member.axis, index.to(tensor.device))
    return architecture, tensors


def mask(state: Mapping[str, torch.Tensor], kept: Mapping[Group, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return weights of the full shapes in which nothing reads the channels that are not kept."""
    tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
    for group, channels in kept.items():
        dropped = torch.tensor(sorted(set(range(group.size)) - set(channels)), dtype=torch.int64)
        for member in group.members:
            if member.reads:
                tensors[member.name].index_fill_(member.axis, dropped, 0.0)
    return tensors


def verified(
    architecture: Architecture, groups: Sequence[Group], *, alignment: int, seed: int
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Return the groups for which a pruned network equals the masked one, and a sentence for the others.

    A network with random weights loses the first and then some random channels of one group after the other. It
    protects against blocks that reorder or mix channels in a way shapes do not show, such as a grouped
    convolution.
    """
    network = build(architecture, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    _randomize_norms(network, generator)
    good, reasons = [], []
    for group in groups:
        size = next(size for size in next_sizes(group.size, alignment) if with_size(architecture, group, size))
        last = range(group.size - size, group.size)
        some = sorted(torch.randperm(group.size, generator=generator)[:size].tolist())
        if all(_equal_when_masked(architecture, network, {group: kept}, generator) for kept in (last, some)):
            good.append(group)
        else:
            reasons.append(f"{group.name}: its channels are mixed or reordered inside the block")
    return tuple(good), tuple(reasons)


def next_sizes(size: int, alignment: int) -> range:
    """Return the smaller sizes a group may have, largest first: multiples of the alignment."""
    return range((size - 1) // alignment * alignment, 0, -alignment)


def _fixed_outputs(architecture: Architecture) -> Iterator[str]:
    """Yield a sentence for each type of block that has weights but a fixed number of output channels."""
    fixed: Counter[str] = Counter()
    for (_, block), segment in zip(_blocks(architecture), lower(architecture).segments, strict=True):
        channels = segment.output.shape[1]
        own = any(getattr(block, name) == channels for name in _prunable(block))
        if len(segment.output.shape) == 4 and not own and any(op.parameters for op in segment.ops):
            fixed[BLOCKS.name_of(type(block))] += 1
    for name, count in fixed.items():
        yield f"output channels of {count} {name}: the block does not declare them prunable"


def _find_group(architecture: Architecture, seed: tuple[int, int, str], size: int, alignment: int) -> Group | str:
    """Return the group a field belongs to, or why it has none; tries a few sizes, since one may coincide."""
    reason = ""
    for smaller in next_sizes(size, alignment)[:4]:
        found = _spread(architecture, seed, size, smaller)
        if isinstance(found, str):
            reason = reason or found
            continue
        axes = _changed_axes(architecture, _with_fields(architecture, dict.fromkeys(found, smaller)))
        odd = [axis for axis in axes if axis[2:] != (size, smaller)]
        if odd:
            name, axis, before, after = odd[0]
            return f"axis {axis} of {name} goes from {before} to {after} when {size} channels become {smaller}"
        members = tuple(Member(name=name, axis=axis) for name, axis, _, _ in axes)
        return Group(name=_named(*seed), size=size, fields=found, members=members)
    return reason


def _spread(
    architecture: Architecture, seed: tuple[int, int, str], size: int, smaller: int
) -> tuple[tuple[int, int, str], ...] | str:
    """Follow a lowered field through the next blocks; return all fields to lower, or why it fails."""
    blocks = list(_blocks(architecture))
    segments = lower(architecture).segments
    first = next(index for index, (place, _) in enumerate(blocks) if place == seed[:2])
    shape: Shape = segments[first].input.shape[1:]
    fields: list[tuple[int, int, str]] = []
    for index in range(first, len(blocks)):
        place, block = blocks[index]
        options = [(seed[2],)] if index == first else _subsets(block, size)
        fitting = _fitting(block, options, smaller, shape, segments[index])
        if fitting is None and index == first:
            return "a smaller number would change the block's operators"
        if fitting is None:
            return f"{_named(*place)} could not take the result without changing its operators"
        names, shape = fitting
        fields.extend((*place, name) for name in names)
        if shape == segments[index].output.shape[1:]:
            return tuple(fields)
    return "it is the network's output"


def _fitting(
    block: Block, options: Sequence[tuple[str, ...]], smaller: int, shape: Shape, segment: Segment
) -> tuple[tuple[str, ...], Shape] | None:
    """Return the first set of fields which, lowered, keeps the block's operators, and the shape it gives."""
    for names in options:
        try:
            lowered = lower_block(_replaced(block, names, smaller), shape)
        except LoweringError:
            continue
        if _structure(lowered) == _structure(segment):
            return names, lowered.output.shape[1:]
    return None


def _changed_axes(before: Architecture, after: Architecture) -> list[tuple[str, int, int, int]]:
    """Return tensor, axis, size before and after, wherever the shapes of two networks differ."""
    found = []
    inputs = (segment.input.shape[1:] for segment in lower(before).segments)
    inputs_after = (segment.input.shape[1:] for segment in lower(after).segments)
    for (place, block), other, arriving, arriving_after in zip(
        _blocks(before), after.blocks, inputs, inputs_after, strict=True
    ):
        if (block, arriving) == (other, arriving_after):
            continue
        shapes_after = dict(_shapes(other, arriving_after))
        for name, shape in _shapes(block, arriving):
            for axis, (length, length_after) in enumerate(zip(shape, shapes_after[name], strict=True)):
                if length != length_after:
                    found.append((f"{_named(*place)}.{name}", axis, length, length_after))
    return found


@functools.lru_cache(maxsize=65536)
def _shapes(block: Block, input_shape: Shape) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return name and shape of every tensor of a block, built without data."""
    with torch.device("meta"):
        module = block.build(input_shape)
    return tuple((name, tuple(tensor.shape)) for name, tensor in module.state_dict().items())


@functools.lru_cache(maxsize=65536)
def _structure(segment: Segment) -> Structure:
    """Return the operators of a segment and how they are connected, without shapes."""
    return tuple(
        (op.kind, tuple(value.id for value in op.inputs), tuple(value.id for value in op.outputs)) for op in segment.ops
    )


def _equal_when_masked(
    architecture: Architecture,
    network: Network,
    kept: Mapping[Group, Sequence[int]],
    generator: torch.Generator,
) -> bool:
    x = torch.randn(2, *architecture.input_shape, generator=generator)
    smaller, state = cut(architecture, network.state_dict(), kept)
    pruned = build(smaller).eval()
    pruned.load_state_dict(state)
    with torch.no_grad():
        expected = torch.func.functional_call(network, mask(network.state_dict(), kept), (x,))
        difference = (pruned(x) - expected).abs().max()
    return bool(difference <= TOLERANCE * expected.abs().max())


def _randomize_norms(network: nn.Module, generator: torch.Generator) -> None:
    """Give batch norms the statistics of a trained network, so that no channel equals another or is dead."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 1.5),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)


def _blocks(architecture: Architecture) -> Iterator[tuple[Place, Block]]:
    for stage, blocks in enumerate(architecture.stages):
        for number, block in enumerate(blocks):
            yield (stage, number), block


def _prunable(block: Block) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(type(block), "prunable", ())
    return tuple(name for name in names if type(getattr(block, name)) is int and getattr(block, name) > 0)


def _subsets(block: Block, size: int) -> list[tuple[str, ...]]:
    """Return all sets of the block's prunable fields that hold `size`, the empty one first."""
    names = [name for name in _prunable(block) if getattr(block, name) == size]
    return [chosen for count in range(len(names) + 1) for chosen in itertools.combinations(names, count)]


def _replaced(block: Block, names: Sequence[str], size: int) -> Block:
    return replace(block, **dict.fromkeys(names, size)) if names else block  # type: ignore[type-var]


def _with_fields(architecture: Architecture, fields: Mapping[tuple[int, int, str], int]) -> Architecture:
    stages = [list(stage) for stage in architecture.stages]
    for (stage, number, name), size in fields.items():
        stages[stage][number] = _replaced(stages[stage][number], (name,), size)
    return Architecture(architecture.input_shape, tuple(tuple(stage) for stage in stages))


def _named(stage: int, number: int, field: str = "") -> str:
    return f"stages.{stage}.{number}.{field}".rstrip(".")
