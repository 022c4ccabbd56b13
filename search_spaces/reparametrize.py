"""From the form to train to the form to deploy, for architectures whose blocks have both.

    searched = space.decode(values)                # deployed: its costs are those of the file that ships
    network = build(training_form(searched))       # train this
    deployed, weights = deploy(training_form(searched), network.state_dict())
    assert deployed == searched                    # and this is what is measured and exported

Any block takes part that has a boolean field `deployed` and builds `BranchedConv` layers while that is false and
equally named `BiasedConv` layers while it is true. For architectures without such blocks both functions change
nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from search_spaces.architecture import Architecture, Block, Shape
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower
from search_spaces.reparametrized_blocks import BranchedConv


def is_deployed(architecture: Architecture) -> bool:
    """Tell whether no block is in its form to train."""
    return all(getattr(block, "deployed", True) for block in architecture.blocks)


def training_form(architecture: Architecture) -> Architecture:
    """Return the architecture with every block in its form to train."""
    return _with_form(architecture, deployed=False)


def deploy(
    architecture: Architecture, weights: Mapping[str, torch.Tensor]
) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """Return the deployed architecture and weights with which it computes the same in evaluation mode.

    Branches are fused in double precision, with the running statistics of batch normalization.

    Args:
        architecture: With some blocks in their form to train.
        weights: State dict of that network; not changed.

    Raises:
        SpaceError: The weights are of another network.
    """
    shapes = iter(segment.input.shape[1:] for segment in lower(architecture).segments)
    converted: dict[str, torch.Tensor] = {}
    for k, stage in enumerate(architecture.stages):
        for j, block in enumerate(stage):
            prefix = f"stages.{k}.{j}."
            own = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
            if not getattr(block, "deployed", True):
                own = _fused(block, next(shapes), own, prefix)
            else:
                next(shapes)
            converted |= {prefix + name: tensor for name, tensor in own.items()}
    return _with_form(architecture, deployed=True), converted


def _fused(block: Block, shape: Shape, weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        module = block.build(shape)
    try:
        module.load_state_dict(dict(weights), assign=True)
    except RuntimeError as error:
        raise SpaceError(f"the weights do not fit block {prefix.rstrip('.')} ({block}): {error}") from error
    left = dict(weights)
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, BranchedConv):
                path = f"{name}." if name else ""
                left = {known: tensor for known, tensor in left.items() if not known.startswith(path)}
                left[f"{path}conv.weight"], left[f"{path}conv.bias"] = layer.fused()
    return left


def _with_form(architecture: Architecture, *, deployed: bool) -> Architecture:
    def changed(block: Any) -> Any:  # Any: the field is no part of the Block protocol
        return replace(block, deployed=deployed) if hasattr(block, "deployed") else block

    stages = tuple(tuple(changed(block) for block in stage) for stage in architecture.stages)
    return Architecture(architecture.input_shape, stages)
