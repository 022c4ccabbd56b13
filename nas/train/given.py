"""Weights that a user gives: ours, or those of a published network under torchvision's or timm's names."""

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from nas.train.checkpoint import load_network, load_weights
from nas.train.inheritance import NothingFitsError, inherit
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.checkpoints import nearly, recognize
from search_spaces.errors import ConfigError, RunError


def given_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """Return a file's weights under our names; those of a published network are renamed, others stay as they are.

    Raises:
        ConfigError: There is no such file, its ending is another, or it nearly holds a published network's weights.
        RunError: The file cannot be read or holds something else than tensors.
    """
    status = path.stat() if path.is_file() else None
    return _read(path, (status.st_mtime_ns, status.st_size) if status else ())


@functools.lru_cache(maxsize=1)
def _read(path: Path, _version: tuple[int, ...]) -> Mapping[str, torch.Tensor]:
    """Read once for all candidates that a process trains."""
    weights = load_weights(path)
    known = recognize(weights)
    if known is None:
        _refuse_nearly(path, weights)
    return known.weights if known is not None else weights


def _refuse_nearly(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    near = nearly(weights)
    if near:
        raise ConfigError(f"{path} {near}; use a file that holds that network's tensors, all of them and no others")


def start_from(network: nn.Module, path: Path) -> str:
    """Fill a network, in place, with what fits of a file's weights, and return what happened in words.

    A network that none of the weights fits, as a hand-made one of another family, keeps its random weights.

    Raises:
        ConfigError: There is no such file, or its ending is another.
        RunError: The file cannot be read or holds something else than tensors.
    """
    try:
        return f"started from {path}: {inherit(network, given_weights(path))}"
    except NothingFitsError:
        return f"started from random weights: {path} holds none that fit"


def given_network(path: Path, *, height: int, width: int) -> tuple[Architecture, nn.Module]:
    """Return the trained network of a file, in evaluation mode.

    Args:
        path: A file by `save_network`, which says itself for which images its network is; or one of a published
            network, with as many classes as the task.
        height: Of the images, for a published network.
        width: Likewise.

    Raises:
        ConfigError: There is no such file, its ending is another, or it nearly holds a published network's weights.
        RunError: The file cannot be read, or does not say which network it holds and is of no published one.
    """
    weights = load_weights(path)
    known = recognize(weights)
    if known is None:
        _refuse_nearly(path, weights)
        if path.suffix != ".safetensors":
            raise RunError(
                f"{path} does not say which network it holds, and its {len(weights)} tensors, such as "
                f"{next(iter(weights))!r}, are of no published network that is known here; save the network by "
                "nas.train.save_network"
            )
        architecture, network, _ = load_network(path)
        return architecture, network
    architecture = known.at(height, width)
    network = build(architecture)
    network.load_state_dict(dict(known.weights))
    return architecture, network.eval()
