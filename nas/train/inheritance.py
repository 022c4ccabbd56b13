"""Starting from trained weights: the same network's, or a larger one's by slicing."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.build import slice_weights
from search_spaces.errors import ConfigError


class NothingFitsError(ConfigError):
    """Not one convolution or linear layer of a network fits the weights it should start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What of a network's tensors came from the weights it was started from.

    Attributes:
        whole: Names of tensors taken as they were.
        sliced: Names of tensors cut out of larger ones.
        fresh: Names of tensors that kept their random values.
    """

    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.whole)} tensors taken over, {len(self.sliced)} sliced, {len(self.fresh)} fresh"


def inherit(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> Inherited:
    """Fill a network, in place, from equally named tensors of an equal or larger one.

    Leading channels and kernel centres are taken (`search_spaces.build.slice_weights`). The last linear layer
    stays fresh when the number of classes differs, since classes of other data mean nothing here. Where the
    weights are for colour images and the network sees grey ones, the first convolution gets the sum over the
    colours, which computes the same for grey images. After slicing, batch norm statistics are off: train, or
    call `recalibrate_batch_norm`.

    Raises:
        NothingFitsError: Not one convolution or linear layer fits; the weights are of another family.
    """
    wanted = network.state_dict()
    source = _without_other_classes(network, dict(weights))
    _sum_colors(network, source)
    fresh = slice_weights(source, network, strict=False)
    taken = [name for name in wanted if name not in fresh]
    if not any(wanted[name].ndim >= 2 for name in taken):
        example = next(iter(wanted))
        raise NothingFitsError(
            f"the weights fit no layer of the network: it has {len(wanted)} tensors such as {example!r}, "
            f"the weights have {len(weights)} such as {next(iter(weights), 'none')!r}"
        )
    sliced = tuple(name for name in taken if source[name].shape != wanted[name].shape)
    return Inherited(whole=tuple(name for name in taken if name not in sliced), sliced=sliced, fresh=fresh)


def _without_other_classes(network: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if layers:
        name, layer = layers[-1]
        given = weights.get(f"{name}.weight")
        if given is not None and given.shape[0] != layer.out_features:
            weights.pop(f"{name}.weight")
            weights.pop(f"{name}.bias", None)
    return weights


def _sum_colors(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            given = weights.get(f"{name}.weight")
            if given is not None and given.ndim == 4 and layer.in_channels == 1 and given.shape[1] == 3:
                weights[f"{name}.weight"] = given.sum(1, keepdim=True)
            return
