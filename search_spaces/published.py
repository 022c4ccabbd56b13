"""Published weights: what torchvision and timm call the tensors of five families, mapped onto ours.

The files are the user's to bring. Parameter names and shapes are facts of the public checkpoints; one small table
for each family and layout turns them into ours:

| family | torchvision | timm |
|---|---|---|
| MobileNetV2 | mobilenet_v2 | mobilenetv2_100 |
| MobileNetV3 | mobilenet_v3_small, mobilenet_v3_large | mobilenetv3_small_100, mobilenetv3_large_100 |
| ShuffleNetV2 | shufflenet_v2_x0_5 to x2_0 | none |
| EfficientNet | efficientnet_b0 to b4 | efficientnet_b0 to b4 |
| ResNet | resnet18 | resnet18 |

Checkpoints of timm whose names begin with "tf_" pad asymmetrically, which no block of ours does: they load by name
but compute something else.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal

import torch

from search_spaces.architecture import Architecture, Block
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import Network
from search_spaces.efficientnet_blocks import MBConv
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower
from search_spaces.resnet_blocks import ResidualBasic
from search_spaces.shuffle_blocks import ShuffleUnit

Layout = Literal["torchvision", "timm"]
Names = Iterator[tuple[str, str]]
"""Pairs of module paths, ours and theirs, for modules that hold tensors themselves."""


def load_published(
    architecture: Architecture, state_dict: Mapping[str, torch.Tensor], *, layout: Layout
) -> dict[str, torch.Tensor]:
    """Return published weights under our names, for `build(architecture).load_state_dict`.

    Tensors are shared with `state_dict`, not copied. A pointwise convolution after pooling, which timm has in some
    heads, becomes our linear layer.

    Args:
        architecture: The published network, with as many classes as the weights.
        state_dict: What the public file holds.
        layout: Whose names the file uses.

    Raises:
        SpaceError: The architecture is of none of the families, its batch normalization has another epsilon than
            the layout's, or names or shapes do not fit.
        ValueError: Another layout.
    """
    family = _family(architecture)
    if layout not in ("torchvision", "timm"):
        raise ValueError(f"layout must be 'torchvision' or 'timm', got {layout!r}")
    if (family, layout) not in _TABLES:
        raise SpaceError(f"{layout} has no weights of {family}")
    _check_eps(architecture, family, layout)
    modules = dict(_TABLES[family, layout](architecture))
    first, last = next(iter(modules)), next(reversed(modules))
    for path in (first, last):  # before anything is built: files of most other networks fail here
        if f"{modules[path]}.weight" not in state_dict:
            raise SpaceError(_lacking(f"{path}.weight", f"{modules[path]}.weight", family, layout))
    left = set(state_dict)
    found = {}
    for name, wanted in _shapes(architecture).items():
        path, _, tensor = name.rpartition(".")
        theirs = f"{modules[path]}.{tensor}"
        if theirs in state_dict:
            found[name] = _fitted(state_dict[theirs], wanted, name, theirs)
            left.discard(theirs)
        elif tensor == "num_batches_tracked":  # absent from files older than torch 0.4.1
            found[name] = torch.zeros((), dtype=torch.int64)
        else:
            raise SpaceError(_lacking(name, theirs, family, layout))
    if left:
        raise SpaceError(
            f"the weights hold {len(left)} tensors that the architecture has no place for, such as {min(left)!r}"
        )
    return found


MISSING = "is missing"
"""What `misfits` says of a tensor that a file lacks."""


def names_known(architecture: Architecture, names: Collection[str], *, layout: Layout) -> float:
    """Return the share of a file's modules that a layout has too; nothing is built, so it is quick.

    Args:
        architecture: The published network.
        names: Of the file's tensors.
        layout: Whose names the file may use.

    Raises:
        SpaceError: The architecture is of none of the families.
    """
    theirs = {path for _, path in _TABLES[_family(architecture), layout](architecture)}
    given = {name.rpartition(".")[0] for name in names}
    return len(theirs & given) / max(len(given), 1)


def misfits(
    architecture: Architecture, state_dict: Mapping[str, torch.Tensor], *, layout: Layout
) -> tuple[tuple[str, str], ...]:
    """Return the tensors in which a file differs from a published network, and what is wrong with each.

    Args:
        architecture: The published network.
        state_dict: What the file holds.
        layout: Whose names the file uses.

    Returns:
        Names and words such as `MISSING`, in the order of the network, then of the file; empty for its weights.

    Raises:
        SpaceError: The architecture is of none of the families.
    """
    modules = dict(_TABLES[_family(architecture), layout](architecture))
    found, left = [], dict.fromkeys(state_dict)
    for name, wanted in _shapes(architecture).items():
        path, _, tensor = name.rpartition(".")
        theirs = f"{modules[path]}.{tensor}"
        left.pop(theirs, None)
        if theirs not in state_dict:
            if tensor != "num_batches_tracked":
                found.append((theirs, MISSING))
        elif (given := tuple(state_dict[theirs].shape)) not in (wanted, (*wanted, 1, 1)):
            found.append((theirs, f"has shape {given}, expected {wanted}"))
    return (*found, *((name, "is none of its tensors") for name in left))


def _lacking(name: str, theirs: str, family: str, layout: Layout) -> str:
    return f"{name} is {theirs} in {layout}'s {family}, which the weights do not hold"


def _fitted(given: torch.Tensor, wanted: tuple[int, ...], name: str, theirs: str) -> torch.Tensor:
    if tuple(given.shape) == wanted:
        return given
    if tuple(given.shape) == (*wanted, 1, 1):
        return given.reshape(wanted)
    raise SpaceError(f"{name} has shape {wanted}, {theirs} has {tuple(given.shape)}")


def _shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    inputs = iter(segment.input.shape[1:] for segment in lower(architecture).segments)
    with torch.device("meta"):
        network = Network([[block.build(next(inputs)) for block in stage] for stage in architecture.stages])
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _family(architecture: Architecture) -> str:
    kinds = {type(block) for block in architecture.blocks}
    last = architecture.blocks[-1]
    if ShuffleUnit in kinds:
        return "shufflenet_v2"
    if ResidualBasic in kinds:
        return "resnet"
    if MBConv in kinds:
        return "efficientnet"
    if InvertedResidual in kinds and isinstance(last, Classifier):
        return "mobilenet_v3" if last.hidden else "mobilenet_v2"
    raise SpaceError(
        "published weights exist for MobileNetV2, MobileNetV3, ShuffleNetV2, EfficientNet and ResNet with basic "
        f"blocks, got an architecture of {', '.join(sorted(kind.__name__ for kind in kinds))}"
    )


def _check_eps(architecture: Architecture, family: str, layout: Layout) -> None:
    expected = 1e-3 if (family, layout) == ("mobilenet_v3", "torchvision") else 1e-5
    for place, block in _placed(architecture):
        eps = getattr(block, "eps", expected)
        if eps != expected:
            raise SpaceError(
                f"{layout} trained {family} with batch normalization's eps={expected}, {place} has {eps=}: build the "
                "architecture with that eps"
            )


def _placed(architecture: Architecture) -> list[tuple[str, Block]]:
    """Return every block with its module path."""
    return [(f"stages.{k}.{j}", block) for k, stage in enumerate(architecture.stages) for j, block in enumerate(stage)]


def _conv_norm(ours: str, conv: str, norm: str) -> Names:
    yield f"{ours}.conv", conv
    yield f"{ours}.norm", norm


def _inner(architecture: Architecture) -> list[tuple[str, Block]]:
    """Return the blocks between the stem and the head."""
    return [(place, block) for place, block in _placed(architecture) if isinstance(block, InvertedResidual | MBConv)]


def _ends(architecture: Architecture) -> tuple[str, str, str]:
    """Return the paths of the first convolution, of the last and of the classifier."""
    convolutions = [place for place, block in _placed(architecture) if isinstance(block, Conv)]
    return convolutions[0], convolutions[-1], _placed(architecture)[-1][0]


def _parts(block: Block) -> tuple[str, ...]:
    """Return the parts that an inverted residual has, in the order of execution."""
    assert isinstance(block, InvertedResidual | MBConv)
    present = {"expand": block.expand, "depthwise": True, "se": bool(block.se), "project": True}
    return tuple(part for part, there in present.items() if there)


def _torchvision_mobilenet_v2(architecture: Architecture) -> Names:
    stem, last, head = _ends(architecture)
    yield from _conv_norm(stem, "features.0.0", "features.0.1")
    blocks = _inner(architecture)
    for number, (place, block) in enumerate(blocks, start=1):
        for step, part in enumerate(_parts(block)):
            path = f"features.{number}.conv.{step}"
            if part == "project":
                yield from _conv_norm(f"{place}.{part}", path, f"features.{number}.conv.{step + 1}")
            else:
                yield from _conv_norm(f"{place}.{part}", f"{path}.0", f"{path}.1")
    path = f"features.{len(blocks) + 1}"
    yield from _conv_norm(last, f"{path}.0", f"{path}.1")
    yield f"{head}.linear", "classifier.1"


def _torchvision_block(place: str, block: Block, path: str) -> Names:
    for step, part in enumerate(_parts(block)):
        if part == "se":
            yield f"{place}.se.reduce", f"{path}.{step}.fc1"
            yield f"{place}.se.expand", f"{path}.{step}.fc2"
        else:
            yield from _conv_norm(f"{place}.{part}", f"{path}.{step}.0", f"{path}.{step}.1")


def _torchvision_mobilenet_v3(architecture: Architecture) -> Names:
    stem, last, head = _ends(architecture)
    yield from _conv_norm(stem, "features.0.0", "features.0.1")
    blocks = _inner(architecture)
    for number, (place, block) in enumerate(blocks, start=1):
        yield from _torchvision_block(place, block, f"features.{number}.block")
    path = f"features.{len(blocks) + 1}"
    yield from _conv_norm(last, f"{path}.0", f"{path}.1")
    yield f"{head}.hidden.0", "classifier.0"
    yield f"{head}.linear", "classifier.3"


def _torchvision_efficientnet(architecture: Architecture) -> Names:
    stem, last, head = _ends(architecture)
    yield from _conv_norm(stem, "features.0.0", "features.0.1")
    stages = list(_runs(architecture))
    for number, stage in enumerate(stages, start=1):
        for position, (place, block) in enumerate(stage):
            yield from _torchvision_block(place, block, f"features.{number}.{position}.block")
    path = f"features.{len(stages) + 1}"
    yield from _conv_norm(last, f"{path}.0", f"{path}.1")
    yield f"{head}.linear", "classifier.1"


def _runs(architecture: Architecture) -> Iterator[list[tuple[str, Block]]]:
    """Yield the inner blocks in runs of equal width, which is where the public networks begin a stage."""
    for _, run in itertools.groupby(_inner(architecture), key=lambda placed: placed[1].width):  # type: ignore[attr-defined]  # all have one
        yield list(run)


def _timm_inverted(architecture: Architecture) -> Names:
    stem, last, head = _ends(architecture)
    yield from _conv_norm(stem, "conv_stem", "bn1")
    stages = list(_runs(architecture))
    for number, stage in enumerate(stages):
        for position, (place, block) in enumerate(stage):
            yield from _timm_block(place, block, f"blocks.{number}.{position}")
    classifier = architecture.blocks[-1]
    if isinstance(classifier, Classifier) and classifier.hidden:
        path = f"blocks.{len(stages)}.0"
        yield from _conv_norm(last, f"{path}.conv", f"{path}.bn1")
        yield f"{head}.hidden.0", "conv_head"
    else:
        yield from _conv_norm(last, "conv_head", "bn2")
    yield f"{head}.linear", "classifier"


def _timm_block(place: str, block: Block, path: str) -> Names:
    expands = "expand" in _parts(block)
    names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if expands else "conv_pw"}
    number = 0
    for part in _parts(block):
        if part == "se":
            yield f"{place}.se.reduce", f"{path}.se.conv_reduce"
            yield f"{place}.se.expand", f"{path}.se.conv_expand"
        else:
            number += 1
            yield from _conv_norm(f"{place}.{part}", f"{path}.{names[part]}", f"{path}.bn{number}")


def _torchvision_shufflenet_v2(architecture: Architecture) -> Names:
    stem, last, head = _ends(architecture)
    yield from _conv_norm(stem, "conv1.0", "conv1.1")
    for k, stage in enumerate(architecture.stages):
        for j, block in enumerate(stage):
            if isinstance(block, ShuffleUnit):
                ours, theirs = f"stages.{k}.{j}", f"stage{k + 1}.{j}"
                if block.stride == 2:
                    yield from _conv_norm(f"{ours}.bypass.0", f"{theirs}.branch1.0", f"{theirs}.branch1.1")
                    yield from _conv_norm(f"{ours}.bypass.1", f"{theirs}.branch1.2", f"{theirs}.branch1.3")
                for step, first in enumerate((0, 3, 5)):
                    path = f"{theirs}.branch2"
                    yield from _conv_norm(f"{ours}.branch.{step}", f"{path}.{first}", f"{path}.{first + 1}")
    yield from _conv_norm(last, "conv5.0", "conv5.1")
    yield f"{head}.linear", "fc"


def _resnet(architecture: Architecture) -> Names:
    stem, _, head = _ends(architecture)
    yield from _conv_norm(stem, "conv1", "bn1")
    for k, stage in enumerate(architecture.stages):
        for j, block in enumerate(stage):
            if isinstance(block, ResidualBasic):
                ours, theirs = f"stages.{k}.{j}", f"layer{k}.{j}"
                for step in (0, 1):
                    yield from _conv_norm(f"{ours}.layers.{step}", f"{theirs}.conv{step + 1}", f"{theirs}.bn{step + 1}")
                yield from _conv_norm(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    yield f"{head}.linear", "fc"


_TABLES: dict[tuple[str, str], Callable[[Architecture], Names]] = {
    ("mobilenet_v2", "torchvision"): _torchvision_mobilenet_v2,
    ("mobilenet_v2", "timm"): _timm_inverted,
    ("mobilenet_v3", "torchvision"): _torchvision_mobilenet_v3,
    ("mobilenet_v3", "timm"): _timm_inverted,
    ("efficientnet", "torchvision"): _torchvision_efficientnet,
    ("efficientnet", "timm"): _timm_inverted,
    ("shufflenet_v2", "torchvision"): _torchvision_shufflenet_v2,
    ("resnet", "torchvision"): _resnet,
    ("resnet", "timm"): _resnet,
}
