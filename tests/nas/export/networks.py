"""Colored digits, 16 high and 24 wide so that no axis can be mistaken, and small networks trained on them."""

import numpy as np
from sklearn.datasets import load_digits

from nas.task import Preprocessing, Split, Task
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.shuffle_blocks import ShuffleUnit

SHAPE = (3, 16, 24)
PREPROCESSING = Preprocessing(height=16, width=24, interpolation="bicubic", fill=7)
PER_CHANNEL = Preprocessing(height=16, width=24, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
TRAIN, VALIDATION, CALIBRATION = 1100, 300, 64


def no_test_split():
    raise AssertionError("the test split must not be read here")


def colored_digits(**options):
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    grey = np.kron(data.images[order] * (255 / 16), np.ones((2, 3))).astype(np.uint8)
    images = np.stack([grey, 255 - grey // 2, grey // 3], axis=-1)
    labels = data.target[order].astype(np.int64)
    held_out = slice(TRAIN, TRAIN + VALIDATION)
    return Task(
        **{
            "name": "colored digits",
            "classes": tuple(f"digit {number}" for number in range(10)),
            "preprocessing": PREPROCESSING,
            "train": Split("train", images[:TRAIN], labels[:TRAIN]),
            "validation": Split("validation", images[held_out], labels[held_out]),
            "calibration": Split("calibration", images[:CALIBRATION], labels[:CALIBRATION]),
            "open_test": no_test_split,
            "data_hash": "0123456789abcdef" * 4,
            **options,
        }
    )


def mobile(activation, se):
    def block(width, hidden, **options):
        return InvertedResidual(width=width, hidden=hidden, activation=activation, se=8 * se, **options)

    return (
        (Conv(width=16, stride=2, activation=activation),),
        (block(16, 32), block(24, 48, stride=2, kernel=5), block(24, 72)),
        (block(32, 64, stride=2),),
        (Conv(width=64, kernel=1, activation=activation), Classifier(classes=10, hidden=32)),
    )


def shuffled():
    def unit(width, stride=1):
        return ShuffleUnit(width=width, hidden=width // 2, stride=stride)

    return (
        (Conv(width=16, stride=2, activation="relu"),),
        (unit(32, 2), unit(32), unit(32)),
        (unit(48, 2), unit(48)),
        (Conv(width=64, kernel=1, activation="relu"), Classifier(classes=10)),
    )


NETWORKS = {
    "mobilenet_v2": Architecture(SHAPE, mobile("relu6", 0)),
    "mobilenet_v3": Architecture(SHAPE, mobile("hard_swish", 1)),
    "shufflenet": Architecture(SHAPE, shuffled()),
}

SMALL = Architecture(
    SHAPE,
    (
        (Conv(width=8, stride=2, activation="hard_swish"),),
        (ShuffleUnit(width=16, hidden=8, stride=2),),
        (Classifier(classes=10),),
    ),
)
"""Exported in a second, where training does not matter."""
