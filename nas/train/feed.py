"""Batches of images on the device that trains: they arrive as uint8 and become network inputs there."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nas.task import Preprocessing

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the images of a task may take to be kept there."""


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Feed:
    """The images of a split, ready to be taken in batches.

    On a GPU the raw images are kept there when they fit; otherwise batches are pinned and copied while it
    computes.

    Args:
        images: Raw pixels `n x height x width x channels`.
        device: Where batches are wanted.
    """

    def __init__(self, images: npt.NDArray[np.uint8], device: torch.device) -> None:
        self._images = images
        self._device = device
        self._resident: torch.Tensor | None = None
        if device.type == "cuda" and images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, indices: npt.NDArray[np.int64] | slice) -> torch.Tensor:
        """Return images as floats `n x channels x height x width` from 0 to 255, channels last in memory."""
        if self._resident is not None:
            where = indices if isinstance(indices, slice) else torch.from_numpy(indices).to(self._device)
            raw = self._resident[where]
        else:
            # A slice may be a read-only view of a mapped file; what index arrays pick is a copy already.
            chosen = self._images[indices]
            raw = torch.from_numpy(np.array(chosen) if isinstance(indices, slice) else chosen)
            if self._device.type == "cuda":
                raw = raw.pin_memory().to(self._device, non_blocking=True)
        return raw.permute(0, 3, 1, 2).float()


class Normalize:
    """Pixels to network inputs, as `Preprocessing.normalize` does it, on the device of the pixels.

    Pixels of another size than the network's are resized first: a teacher may see larger images than its
    student.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._size = (preprocessing.height, preprocessing.width)
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, -1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return inputs `n x channels x height x width`."""
        if tuple(pixels.shape[2:]) != self._size:
            pixels = F.interpolate(pixels, self._size, mode="bilinear", align_corners=False, antialias=True)
        return ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
