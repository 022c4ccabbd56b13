"""Augmentations by name, for whole batches on the training device.

Each is a function of a batch and a generator, without state: `n x channels x height x width` floats in units
of raw pixels (0 to 255) go in and come out. Nothing is augmented that the task does not name, flips least of
all: they break digits and text. A plug-in file adds its own with the decorator:

    @augmentation("fog")
    def fog(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor: ...
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from search_spaces.errors import ConfigError, PluginError, near_matches

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

AUGMENTATIONS: dict[str, Augmentation] = {}
"""All augmentations by the name that a task uses."""


def augmentation(name: str) -> Callable[[Augmentation], Augmentation]:
    """Return a decorator that registers a function; raises PluginError when the name is taken."""

    def decorate(function: Augmentation) -> Augmentation:
        known = AUGMENTATIONS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise PluginError(f"two plug-ins want to be the augmentation {name!r}; {known.__module__} has the name")
        AUGMENTATIONS[name] = function
        return function

    return decorate


def find_augmentations(names: Sequence[str]) -> tuple[Augmentation, ...]:
    """Return the named augmentations in order; raises ConfigError with near matches for an unknown name."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(f"unknown augmentation {name!r}: {near_matches(name, AUGMENTATIONS)}")
    return tuple(AUGMENTATIONS[name] for name in names)


@augmentation("shift")
def shift(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move every image by up to an eighth of its sides; the edge's pixels fill the gap."""
    count, _, height, width = pixels.shape
    rows = torch.arange(height) + _integers(count, height // 8, generator)[:, None]
    columns = torch.arange(width) + _integers(count, width // 8, generator)[:, None]
    rows, columns = rows.clamp(0, height - 1).to(pixels.device), columns.clamp(0, width - 1).to(pixels.device)
    images = torch.arange(count, device=pixels.device)
    # Advanced indices around a slice put the channels last, which is the memory format the network wants.
    return pixels[images[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@augmentation("flip_horizontal")
def flip_horizontal(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror every second image, left to right."""
    return torch.where(_coins(pixels, generator), pixels.flip(3), pixels)


@augmentation("flip_vertical")
def flip_vertical(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror every second image, top to bottom."""
    return torch.where(_coins(pixels, generator), pixels.flip(2), pixels)


@augmentation("rotate")
def rotate(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn every image by up to 10 degrees."""
    angle = _uniform(len(pixels), -math.radians(10), math.radians(10), generator)
    ratio = pixels.shape[2] / pixels.shape[3]
    zero = torch.zeros_like(angle)
    # The grid's units are half sides, so the off-diagonal terms carry the aspect ratio.
    matrix = torch.stack([angle.cos(), -angle.sin() * ratio, zero, angle.sin() / ratio, angle.cos(), zero], 1)
    return _warp(pixels, matrix)


@augmentation("zoom")
def zoom(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Scale every image about its middle, by 0.8 to 1.25."""
    factor = _uniform(len(pixels), math.log(0.8), math.log(1.25), generator).exp()
    zero = torch.zeros_like(factor)
    return _warp(pixels, torch.stack([factor, zero, zero, zero, factor, zero], 1))


@augmentation("crop")
def crop(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cut 40 to 100 % out of every image, at 3/4 to 4/3 of its aspect ratio, and stretch it to its size."""
    count = len(pixels)
    area = _uniform(count, 0.4, 1.0, generator)
    aspect = _uniform(count, math.log(3 / 4), math.log(4 / 3), generator).exp()
    high, wide = (area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)
    down = _uniform(count, -1.0, 1.0, generator) * (1 - high)
    right = _uniform(count, -1.0, 1.0, generator) * (1 - wide)
    zero = torch.zeros_like(area)
    return _warp(pixels, torch.stack([wide, zero, right, zero, high, down], 1))


@augmentation("brightness")
def brightness(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Multiply every image by 0.7 to 1.3."""
    return (pixels * _factors(pixels, 0.3, generator)).clamp(0, 255)


@augmentation("contrast")
def contrast(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Multiply every image's differences from its mean by 0.7 to 1.3."""
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (mean + (pixels - mean) * _factors(pixels, 0.3, generator)).clamp(0, 255)


@augmentation("color")
def color(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Multiply every channel of every image by 0.8 to 1.2 and every image's saturation by 0.6 to 1.4."""
    gains = _uniform(pixels.shape[0] * pixels.shape[1], 0.8, 1.2, generator).to(pixels.device)
    tinted = pixels * gains.view(*pixels.shape[:2], 1, 1)
    grey = tinted.mean(1, keepdim=True)
    return (grey + (tinted - grey) * _factors(pixels, 0.4, generator)).clamp(0, 255)


@augmentation("cutout")
def cutout(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fill one square of every image with the image's mean (DeVries and Taylor 2017, arXiv:1708.04552).

    Its side is a third of the image's shorter one, where the paper tunes it for each data set, and it may
    hang over the edge as there.
    """
    count, _, height, width = pixels.shape
    half = min(height, width) / 6
    middle_y = _uniform(count, 0, height, generator)[:, None]
    middle_x = _uniform(count, 0, width, generator)[:, None]
    rows = (torch.arange(height) + 0.5 - middle_y).abs() < half
    columns = (torch.arange(width) + 0.5 - middle_x).abs() < half
    hole = (rows[:, None, :, None] & columns[:, None, None, :]).to(pixels.device)
    return torch.where(hole, pixels.mean((2, 3), keepdim=True), pixels)


def _warp(pixels: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Sample each image at affinely moved places; `matrix` is `n x 6`, what lies outside repeats the edge."""
    grid = F.affine_grid(matrix.view(-1, 2, 3).to(pixels.device), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def _integers(count: int, limit: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(-limit, limit + 1, (count,), generator=generator)


def _coins(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(len(pixels), generator=generator) < 0.5).to(pixels.device)[:, None, None, None]


def _factors(pixels: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    return _uniform(len(pixels), 1 - spread, 1 + spread, generator).to(pixels.device)[:, None, None, None]
