"""Handwritten digits that scikit-learn carries: 1,797 grey images of 8 x 8 pixels, no download."""

from dataclasses import dataclass

import numpy as np

from nas.data.source import TASKS, Part, Source


@TASKS.register("digits")
@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """The digits of scikit-learn's `load_digits` (UCI, Alpaydin and Kaynak 1998), levels 0..16 made 0..255.

    The images are handed over at 8 x 8 pixels and enlarged as the options say. There is one pool and no key
    to the writers, so the same hands have written training and test images: results say nothing about a new
    writer.
    """

    def read(self) -> Source:
        """Return the digits as one pool of training images."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        names = [f"digits[{number}]" for number in range(len(pixels))]
        return Source(
            name="digits",
            classes=tuple(str(name) for name in bunch.target_names),
            train=Part(images=pixels, labels=bunch.target.astype(np.int64), names=names),
            notes=("The writers of the digits are not known, so each may be in every split.",),
        )
