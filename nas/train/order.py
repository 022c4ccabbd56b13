"""Which images a step sees: a function of seed and epoch, so that a continued training sees the same."""

import hashlib

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def derived_seed(seed: int, *parts: int | str) -> int:
    """Return a seed of 63 bits for one purpose, such as ("order", epoch); purposes are unrelated."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def num_batches(num_images: int, batch_size: int) -> int:
    """Return the steps of an epoch; never so many that a batch holds one image, which batch norm refuses."""
    return max(1, min(-(-num_images // batch_size), num_images // 2))


def epoch_batches(
    labels: npt.NDArray[np.int64], batch_size: int, *, seed: int, epoch: int, balanced: bool = False
) -> list[Indices]:
    """Return the image numbers of every step of one epoch, in batches whose sizes differ by one at most.

    Args:
        labels: Of all training images, `n`.
        batch_size: Wanted images a step.
        seed: Of the training.
        epoch: From 0; every epoch has another order.
        balanced: Whether every class shall be seen equally often, rare ones repeatedly, frequent ones in
            part.
    """
    rng = np.random.default_rng(derived_seed(seed, "order", epoch))
    chosen = _balanced(labels, rng) if balanced else np.arange(len(labels))
    return np.array_split(rng.permutation(chosen), num_batches(len(chosen), batch_size))


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return weights of classes, inverse to their images, mean 1 over the images; 0 for absent classes."""
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def _balanced(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Indices:
    """Draw as many images as there are, equally many of each class, all of a class before one comes twice."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share, extra = divmod(len(labels), len(members))
    lucky = set(rng.permutation(len(members))[:extra].tolist())
    drawn = []
    for number, images in enumerate(members):
        wanted = share + (number in lucky)
        rounds = [rng.permutation(images) for _ in range(-(-wanted // len(images)))]
        drawn.append(np.concatenate(rounds)[:wanted] if rounds else images[:0])
    return np.concatenate(drawn)
