"""Operators that are computed, and recorded, by others of the vocabulary, exactly."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from search_spaces.aten.calls import Arguments

Tensor = Any  # Any: torch hands arguments untyped; always a tensor
Rewriter = Callable[[Arguments], Any]  # Any: a tensor, or a tuple of them


def _stack(a: Arguments) -> Tensor:
    return torch.cat([tensor.unsqueeze(a["dim"]) for tensor in a["tensors"]], a["dim"])


def _unbind(a: Arguments) -> tuple[Tensor, ...]:
    return tuple(a["self"].select(a["dim"], number) for number in range(a["self"].shape[a["dim"]]))


def _repeat(a: Arguments) -> Tensor:
    """Every axis in front of itself, expanded and joined; nothing to do where all repeats are 1."""
    repeats, x = a["repeats"], a["self"]
    x = x.view((1,) * (len(repeats) - x.ndim) + tuple(x.shape))
    if all(count == 1 for count in repeats):
        return x
    pairs = [pair for count, size in zip(repeats, x.shape, strict=True) for pair in (count, size)]
    apart = x.reshape([1 if place % 2 == 0 else size for place, size in enumerate(pairs)])
    return apart.expand(pairs).reshape([count * size for count, size in zip(repeats, x.shape, strict=True)])


def _roll(a: Arguments) -> Tensor:
    x, dims = a["self"], a["dims"]
    if not dims:
        return torch.roll(x.reshape(-1), a["shifts"], (0,)).reshape(x.shape)
    for shift, dim in zip(a["shifts"], dims, strict=True):
        first = -shift % x.shape[dim]
        if first:
            x = torch.cat(x.split([first, x.shape[dim] - first], dim)[::-1], dim)
    return x


def _pixel_shuffle(a: Arguments) -> Tensor:
    x, r = a["self"], a["upscale_factor"]
    *lead, channels, height, width = x.shape
    n = len(lead)
    parts = x.reshape(*lead, channels // (r * r), r, r, height, width)
    moved = parts.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return moved.reshape(*lead, channels // (r * r), height * r, width * r)


def _pixel_unshuffle(a: Arguments) -> Tensor:
    x, r = a["self"], a["downscale_factor"]
    *lead, channels, height, width = x.shape
    n = len(lead)
    parts = x.reshape(*lead, channels, height // r, r, width // r, r)
    moved = parts.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return moved.reshape(*lead, channels * r * r, height // r, width // r)


def _channel_shuffle(a: Arguments) -> Tensor:
    x, groups = a["self"], a["groups"]
    images, channels, *sides = x.shape
    return x.reshape(images, groups, channels // groups, *sides).transpose(1, 2).reshape(x.shape)


def _add_multiple(a: Arguments) -> Tensor:
    return a["self"] + a["other"] * a["alpha"]


def _subtract_multiple(a: Arguments) -> Tensor:
    return a["self"] - a["other"] * a["alpha"]


def _subtract_from(a: Arguments) -> Tensor:
    return a["other"] - a["self"] * a["alpha"]


def _glu(a: Arguments) -> Tensor:
    kept, gate = a["self"].chunk(2, a["dim"])
    return kept * gate.sigmoid()


def _randomized_relu(a: Arguments) -> Tensor:
    return F.leaky_relu(a["self"], (a["lower"] + a["upper"]) / 2)


def _baddbmm(a: Arguments) -> Tensor:
    product, added = torch.bmm(a["batch1"], a["batch2"]), a["self"]
    product = product if a["alpha"] == 1 else product * a["alpha"]
    return product if a["beta"] == 0 else product + (added if a["beta"] == 1 else added * a["beta"])


def _convolution_over_rows(a: Arguments) -> Tensor:
    """A convolution over one axis is one over two, of a map with one row."""
    made = torch.convolution(
        a["input"].unsqueeze(2), a["weight"].unsqueeze(2), a["bias"], [1, *a["stride"]], [0, *a["padding"]],
        [1, *a["dilation"]], a["transposed"], [0, *a["output_padding"]], a["groups"],
    )  # fmt: skip
    return made.squeeze(2)


REWRITERS: dict[str, Rewriter] = {
    "stack": _stack,
    "unbind": _unbind,
    "repeat": _repeat,
    "roll": _roll,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "glu": _glu,
    "rrelu_with_noise": _randomized_relu,
    "baddbmm": _baddbmm,
}
"""Rewriters by aten name."""


_MULTIPLES: dict[str, Rewriter] = {"add": _add_multiple, "sub": _subtract_multiple, "rsub": _subtract_from}


def rewriter(name: str, arguments: Arguments) -> Rewriter | None:
    """Return what computes a call by other operators; None for one that is recorded as it is."""
    if name == "convolution" and arguments["weight"].ndim == 3:
        return _convolution_over_rows
    if arguments.get("alpha", 1) != 1 and name in _MULTIPLES:
        return _MULTIPLES[name]
    return REWRITERS.get(name)


class InstanceNormOneByOne(TorchFunctionMode):
    """Computes instance normalization as group normalization with one channel a group.

    Torch computes it as batch normalization of a reshaped map, which for one image cannot be told from batch
    normalization without running statistics; that one is refused, since it would give other results for a batch.
    """

    def __torch_function__(
        self,
        func: Any,  # Any: whatever torch calls
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace one function and call all others."""
        given = kwargs or {}
        return (_instance_norm if func is F.instance_norm else func)(*args, **given)


def _instance_norm(
    input: Tensor,  # noqa: A002 - the names are torch's
    running_mean: Tensor = None,
    running_var: Tensor = None,
    weight: Tensor = None,
    bias: Tensor = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if use_input_stats:
        return F.group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
