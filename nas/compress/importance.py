"""How much a network loses with each channel of a group, by one of several criteria.

taylor      expected change of the loss to first order when nobody reads the channel (Molchanov et al. 2019,
            arXiv:1906.10771), with the gradient of the weights that read it; comparable between groups
l1          sum of absolute weights that make or read the channel (Li et al. 2017, arXiv:1608.08710, there
only
            those that make it)
bn_scale    absolute scale of the batch norms on the channel (Liu et al. 2017, arXiv:1708.06519, without its
            penalty while training); l1 where a group has none
fpgm        distance of the filters that make the channel from all others of the group (He et al. 2019,
            arXiv:1811.00250)
random      the control

All but taylor are scaled so that a group's channels sum to 1: they rank channels within a group, and between
groups say only which share of it goes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from nas.compress.channels import Group
from nas.task import Task
from nas.train.feed import Feed, Normalize, find_device
from nas.train.order import class_weights, derived_seed

Criterion = Literal["taylor", "l1", "bn_scale", "fpgm", "random"]

Importance = Mapping[str, npt.NDArray[np.float64]]
"""Importance of each channel of a group, by the group's name."""

BATCH = 16
"""Images a gradient is averaged over for taylor; larger ones let contributions of single images cancel."""


def channel_importance(
    criterion: Criterion, network: nn.Module, groups: Sequence[Group], task: Task, *, images: int, seed: int
) -> Importance:
    """Return the importance of every channel of every group, `size` numbers >= 0 for each.

    Args:
        criterion: See the module.
        network: In evaluation mode; left as it is.
        groups: Whose channels.
        task: Its training images serve taylor.
        images: How many of them.
        seed: Which of them, and the control's.
    """
    if criterion == "taylor":
        return _taylor(network, groups, task, images=images, seed=seed)
    state = {name: tensor.detach().double() for name, tensor in network.state_dict().items()}
    scales = {
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.affine
    }
    found = {}
    for group in groups:
        if criterion == "l1":
            scores = _l1(group, state)
        elif criterion == "bn_scale":
            scores = _bn_scale(group, state, scales)
        elif criterion == "fpgm":
            scores = _fpgm(group, state)
        elif criterion == "random":
            generator = torch.Generator().manual_seed(derived_seed(seed, "random importance", group.name))
            scores = torch.rand(group.size, generator=generator, dtype=torch.float64)
        else:
            raise ValueError(f"criterion must be taylor, l1, bn_scale, fpgm or random, got {criterion!r}")
        found[group.name] = (scores / scores.sum().clamp(min=1e-12)).numpy()
    return found


def _taylor(network: nn.Module, groups: Sequence[Group], task: Task, *, images: int, seed: int) -> Importance:
    device = find_device("cpu")
    feed, normalize = Feed(task.train.images, device), Normalize(task.preprocessing, device)
    chosen = np.random.default_rng(derived_seed(seed, "taylor")).permutation(len(feed))[:images]
    weights = None
    if task.balance != "none":
        weights = torch.from_numpy(class_weights(task.train.labels, len(task.classes)))
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    total = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    batches = np.array_split(chosen, -(-len(chosen) // BATCH))
    for batch in batches:
        labels = torch.from_numpy(task.train.labels[batch])
        loss = F.cross_entropy(network(normalize(feed.pixels(batch))), labels, weight=weights)
        slopes = dict(
            zip(
                parameters,
                torch.autograd.grad(loss, list(parameters.values()), allow_unused=True),
                strict=True,
            )
        )
        for group in groups:
            change = torch.zeros(group.size, dtype=torch.float64)
            for member in group.members:
                slope = slopes.get(member.name)
                if member.reads and slope is not None:
                    change += _by_channel((parameters[member.name].detach() * slope).double(), member.axis).sum(1)
            total[group.name] += change.abs()
    return {name: (sums / len(batches)).numpy() for name, sums in total.items()}


def _l1(group: Group, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    scores = torch.zeros(group.size, dtype=torch.float64)
    for member in group.members:
        if state[member.name].ndim >= 2:
            scores += _by_channel(state[member.name].abs(), member.axis).sum(1)
    return scores


def _bn_scale(group: Group, state: Mapping[str, torch.Tensor], scales: set[str]) -> torch.Tensor:
    found = [state[member.name].abs() for member in group.members if member.name in scales]
    return torch.stack(found).mean(0) if found else _l1(group, state)


def _fpgm(group: Group, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    filters = [
        _by_channel(state[member.name], 0)
        for member in group.members
        if not member.reads and state[member.name].ndim >= 2
    ]
    if not filters:
        return _l1(group, state)
    joined = torch.cat(filters, 1)
    return torch.cdist(joined, joined).sum(1)


def _by_channel(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a tensor as a matrix, one row for each channel of `axis`."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
