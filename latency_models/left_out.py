"""Predicting samples by fits without them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def left_out_parts(count: int, folds: int, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Yield (rest, part) for every part of `count` samples; with no more samples than folds, parts are single samples.

    Args:
        count: Number of samples, at least 2.
        folds: Number of parts.
        seed: Of the choice of parts.
    """
    order = np.random.default_rng(seed).permutation(count)
    for part in np.array_split(order, min(folds, count)):
        yield np.setdiff1d(order, part), part
