"""Weights on disk: safetensors files that are whole or absent, checked when read. Nothing is ever unpickled.

A file we write holds tensors and, in its header, one JSON record under the key `embedded_nas`: what the
tensors belong to, and a digest of both, so that damage anywhere in the file is noticed.
"""

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from nas.run import write_atomic
from search_spaces.architecture import Architecture
from search_spaces.build import Network, build
from search_spaces.errors import ConfigError, RunError

Tensors = Mapping[str, torch.Tensor]
Record = dict[str, Any]  # Any: JSON values

_HEADER = "embedded_nas"


def write_tensors(path: Path, tensors: Tensors, record: Mapping[str, Any]) -> None:  # Any: JSON values
    """Write tensors and what they belong to, atomically; raises RunError when the disk refuses."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.dumps({**record, "sha256": _seal(plain, record)}, sort_keys=True)
    write_atomic(path, save(plain, {_HEADER: header}))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Record]:
    """Return the tensors of a file of ours and its record.

    Raises:
        RunError: The file cannot be read, was damaged, or is none of ours.
    """
    tensors, header = _read_safetensors(path)
    if header is None:
        raise RunError(f"{path} was not written by nas: its header has no {_HEADER!r}; remove it to have it made again")
    try:
        record: Record = json.loads(header)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); remove it to have it made again") from error
    if record.pop("sha256", None) != _seal(tensors, record):
        raise RunError(
            f"{path} is damaged: its tensors and facts are not those that were written; remove it to have it made again"
        )
    return tensors, record


def save_network(
    path: Path,
    architecture: Architecture,
    module: nn.Module,
    facts: Mapping[str, Any] | None = None,  # Any: JSON values
) -> None:
    """Write a network, its architecture in the header, so that `load_network` needs the file alone."""
    write_tensors(path, module.state_dict(), {**(facts or {}), "architecture": architecture.to_dict()})


def load_network(path: Path) -> tuple[Architecture, Network, Record]:
    """Return the architecture, the network in evaluation mode and the facts of a file by `save_network`.

    Raises:
        RunError: The file cannot be read, was damaged, or does not say which network it holds.
    """
    tensors, record = read_tensors(path)
    if "architecture" not in record:
        raise RunError(f"{path} holds weights but does not say of which network; a file by save_network does")
    architecture = Architecture.from_dict(record.pop("architecture"))
    network = build(architecture)
    load_state(network, tensors, path)
    return architecture, network.eval(), record


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file by the names of a state dict: ours, another safetensors file or a `.pth`.

    Of a training checkpoint the averaged weights are taken where there are some. A `.pth` is read with
    `weights_only=True`, so it cannot run code; weights under "state_dict" or "model" are found, and the
    prefix "module." of data-parallel training is dropped.

    Raises:
        ConfigError: There is no such file, or its ending is another.
        RunError: The file cannot be read or holds something else than tensors.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path} to take weights from")
    if path.suffix == ".safetensors":
        tensors, _ = _read_safetensors(path, "expected a whole file of safetensors, copy it again")
        for prefix in ("ema/", "weights/"):
            if any(name.startswith(prefix) for name in tensors):
                return part(tensors, prefix)
        return tensors
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise ConfigError(f"weights come from .safetensors, .pth or .pt files, got {path}")


def load_state(module: nn.Module, tensors: Tensors, path: Path) -> None:
    """Fill a module with all its weights; raises RunError naming the file where names or shapes differ."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != given:
        name = min(set(wanted.items()) ^ set(given.items()))[0]
        raise RunError(
            f"{path} belongs to another network: {name} has shape {given.get(name, 'none')} there, "
            f"{wanted.get(name, 'none')} here"
        )
    module.load_state_dict(dict(tensors))


def part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def digest(tensors: Tensors) -> str:
    """Return the SHA-256 of names, shapes, types and bytes of tensors on the CPU."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _seal(tensors: Tensors, record: Mapping[str, Any]) -> str:  # Any: JSON values
    """Return the digest that a file of ours carries, of its tensors and of what it says they belong to."""
    facts = json.dumps(json.loads(json.dumps(record)), sort_keys=True)
    return hashlib.sha256(f"{digest(tensors)}|{facts}".encode()).hexdigest()


def _read_safetensors(
    path: Path, remedy: str = "restore it, or remove it to have it made again"
) -> tuple[dict[str, torch.Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}); {remedy}") from error


def _read_pth(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # what torch warns of is refused below, in our words
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no type for what it refuses
        raise RunError(
            f"{path} cannot be read as weights alone: {_why_unread(path, error)}; expected a file by "
            "torch.save(model.state_dict(), path), or a .safetensors file"
        ) from error
    for key in ("state_dict", "model_state_dict", "model", "weights"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise RunError(f"{path} holds no tensors by name; save a state dict with torch.save, or as safetensors")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _why_unread(path: Path, error: Exception) -> str:
    """Return what a file is that torch refuses to read as tensors alone; nothing is unpickled to tell."""
    with path.open("rb") as file:
        start = file.read(2)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in parts:
            return "it is a TorchScript archive, a program and not only tensors"
        if "data.pkl" not in parts:
            return "it is a zip archive that torch.save did not write"
        if "not an allowed global" in str(error):
            return _pickled(error)
    elif start[:1] == b"\x80" and type(error).__name__ == "UnpicklingError":
        return _pickled(error)
    elif start not in (b"PK", b"\x80\x02"):
        return f"it is no file of torch, it begins with {start!r}" if start else "it is empty"
    return "it is damaged or was cut off"


def _pickled(error: Exception) -> str:
    asked = re.search(r"GLOBAL ([\w.]+) was not an allowed", str(error))  # the one use of torch's wording: the name
    named = f" such as {asked[1]}" if asked else ""
    return f"it holds pickled objects{named}, not only tensors; unpickling them would run code of it"


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:  # Any: JSON values
    """Raise RunError naming the first fact in which a file's record and the present work differ."""
    for name, value in expected.items():
        other = found.get(name)
        if other == value:
            continue
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            require_same(other, value, path)
        raise RunError(
            f"{path} was made with {name} = {other!r}, now {name} = {value!r}; "
            f"set it back, use another folder, or remove {path.parent}"
        )
