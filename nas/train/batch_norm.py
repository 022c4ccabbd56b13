"""Fresh batch norm statistics for weights that were cut, sliced or averaged."""

import numpy as np
import torch
from torch import nn

from nas.task import Task
from nas.train.feed import Feed, Normalize, find_device
from nas.train.order import derived_seed
from nas.train.threads import torch_threads

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def recalibrate_batch_norm(
    network: nn.Module,
    task: Task,
    *,
    images: int = 512,
    batch: int = 128,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Measure the running statistics of every batch norm anew on training images, in place.

    The statistics become the plain average over the batches, whatever momentum a layer has. No other
    parameter or buffer changes, and every module keeps its mode. 256 to 512 images are enough: with 64 the
    ranking of subnetworks of a supernet suffers.

    Args:
        network: The network; it comes back on the device it was on.
        task: Whose training images are used, without augmentation.
        images: How many, at most.
        batch: Images at once; an even split, so that none holds a single image.
        seed: Which images.
        device: Where to compute.
        threads: Of torch.
    """
    norms = [module for module in network.modules() if isinstance(module, NORMS) and module.track_running_stats]
    if not norms:
        return
    place = find_device(device)
    feed, normalize = Feed(task.train.images, place), Normalize(task.preprocessing, place)
    chosen = np.random.default_rng(derived_seed(seed, "batch norm")).permutation(len(feed))[:images]
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    home = next(network.parameters()).device
    network.eval().to(place)
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()
        with torch_threads(threads), torch.no_grad():
            for part in np.array_split(chosen, max(1, min(-(-len(chosen) // batch), len(chosen) // 2))):
                network(normalize(feed.pixels(part)))
    finally:
        network.to(home)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
