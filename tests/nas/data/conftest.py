"""Small image folders made by Pillow."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Folder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def noise(rng):
    """Make an RGB image of random pixels, no two alike."""

    def make(height: int = 12, width: int = 16) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))

    return make


@pytest.fixture
def folder(tmp_path, noise) -> Folder:
    """Make a folder of PNG files: so many in each of the named subfolders."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "images"
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise().save(root / name / f"{number:03d}.png")
        return root

    return make
