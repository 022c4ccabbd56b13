"""From a value to a torch module, and weights from one network into another."""

from collections.abc import Mapping

import torch
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.errors import SpaceError
from search_spaces.lowering import lower


class Network(nn.Module):
    """The blocks of an architecture in order; block j of stage k is `stages.k.j`."""

    def __init__(self, stages: list[list[nn.Module]]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, `batch x classes`, of images `batch x channels x height x width`."""
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]  # a ModuleList of modules
                x = block(x)
        return x


def build(architecture: Architecture, *, seed: int = 0) -> Network:
    """Return the network with freshly initialized weights; the global random state is left as it was.

    Args:
        architecture: What to build.
        seed: Of the initialization; equal seeds give equal weights.

    Raises:
        LoweringError: A block cannot take its input.
    """
    workload = lower(architecture)
    segments = iter(workload.segments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = [[block.build(next(segments).input.shape[1:]) for block in stage] for stage in architecture.stages]
        network = Network(stages)
        initialize(network)
    return network


def initialize(module: nn.Module) -> None:
    """Draw weights as MobileNetV2 and ShuffleNetV2 do: He normal over the fan-out, small normal classifier."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def slice_weights(source: Mapping[str, torch.Tensor], target: nn.Module, *, strict: bool = True) -> tuple[str, ...]:
    """Fill `target` with leading channels and kernel centres of the equally named tensors of a larger network.

    This is the sharing rule of Once-for-All (Cai et al. 2020, arXiv:1908.09791, section 3.2) without its learned
    kernel transforms, applied to every parameter and buffer alike.

    Args:
        source: State dict of the larger network; tensors are not changed.
        target: The smaller network, filled in place.
        strict: Whether a tensor that cannot be sliced is an error; otherwise it keeps its values.

    Returns:
        Names of the tensors that kept their values; empty when strict.

    Raises:
        SpaceError: A tensor is missing in `source`, or smaller there than in `target`.
    """
    kept = []
    for name, wanted in target.state_dict().items():
        given = source.get(name)
        if (
            given is None
            or given.ndim != wanted.ndim
            or any(have < need for have, need in zip(given.shape, wanted.shape, strict=True))
        ):
            if strict:
                found = "no such tensor" if given is None else f"shape {tuple(given.shape)}"
                raise SpaceError(f"{name} needs at least {tuple(wanted.shape)}, the larger network has {found}")
            kept.append(name)
            continue
        starts = [
            (have - need) // 2 if axis >= 2 else 0
            for axis, (have, need) in enumerate(zip(given.shape, wanted.shape, strict=True))
        ]
        part = given[tuple(slice(start, start + need) for start, need in zip(starts, wanted.shape, strict=True))]
        wanted.copy_(part)
    return tuple(kept)
