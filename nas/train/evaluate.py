"""What a network says about images, in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.task import Preprocessing
from nas.train.feed import Feed, Normalize, find_device
from nas.train.threads import torch_threads

BATCH = 256


def predict(
    network: nn.Module,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int = BATCH,
    device: str = "auto",
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Return the logits of images, `n x classes`.

    The same network, images, batch and device give the same logits, bit for bit. The network comes back in
    the mode and on the device it was in.

    Args:
        network: Any classifier of normalized images.
        images: Raw pixels `n x height x width x channels`.
        preprocessing: How the network wants them.
        batch: Images computed at once.
        device: Where to compute.
        threads: Of torch.
    """
    place = find_device(device)
    feed, normalize = Feed(images, place), Normalize(preprocessing, place)
    with torch_threads(threads), evaluating(network, place), torch.inference_mode():
        parts = (feed.pixels(slice(start, start + batch)) for start in range(0, len(feed), batch))
        logits = [network(normalize(pixels)).float().cpu() for pixels in parts]
    if not logits:
        raise ValueError("there are no images to predict")
    return torch.cat(logits).numpy()


def predictions(
    network: nn.Module,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int = BATCH,
    device: str = "auto",
    threads: int = 1,
) -> npt.NDArray[np.int64]:
    """Return the most likely class of each image, `n`; see `predict`."""
    logits = predict(network, images, preprocessing, batch=batch, device=device, threads=threads)
    classes: npt.NDArray[np.int64] = logits.argmax(1)
    return classes


@contextmanager
def evaluating(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Have the network in evaluation mode on `device` within the block, and as it was after it."""
    modes = {module: module.training for module in network.modules()}
    first = next(network.parameters(), None)
    home = device if first is None else first.device
    network.eval().to(device)
    try:
        yield
    finally:
        network.to(home)
        for module, training in modes.items():
            module.training = training
