"""Real digits at 16 px, a few hundred of them, and networks small enough to train in a second."""

import numpy as np
from sklearn.datasets import load_digits

from nas.task import Preprocessing, Split, Task
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.shuffle_blocks import ShuffleUnit

GREY = Preprocessing(height=16, width=16, color="grey", mean=(128.0,), std=(128.0,))


def no_test_split():
    raise AssertionError("the test split must not be read here")


def digits(train=256, validation=128, **options):
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.kron(data.images[order] * (255 / 16), np.ones((2, 2)))[..., None].astype(np.uint8)
    labels = data.target[order].astype(np.int64)
    held_out = slice(len(images) - validation, None)
    return Task(
        **{
            "name": "tiny digits",
            "classes": tuple("0123456789"),
            "preprocessing": GREY,
            "train": Split("train", images[:train], labels[:train]),
            "validation": Split("validation", images[held_out], labels[held_out]),
            "calibration": Split("calibration", images[:32], labels[:32]),
            "open_test": no_test_split,
            **options,
        }
    )


def tiny(width=8, activation="relu", classes=10, dropout=0.0):
    return Architecture(
        (1, 16, 16),
        (
            (Conv(width=width, stride=2, activation=activation),),
            (
                InvertedResidual(width=2 * width, hidden=3 * width, stride=2, activation=activation),
                InvertedResidual(width=2 * width, hidden=4 * width, activation=activation),
            ),
            (Conv(width=4 * width, kernel=1, activation=activation), Classifier(classes=classes, dropout=dropout)),
        ),
    )


def varied():
    """Every block of the default space, with every option that changes which channels belong together."""
    return Architecture(
        (1, 16, 16),
        (
            (Conv(width=24, stride=2, activation="hard_swish"),),
            (
                InvertedResidual(width=24, hidden=24, expand=False, se=8),
                InvertedResidual(width=32, hidden=40, stride=2, se=8, activation="hard_swish"),
                InvertedResidual(width=32, hidden=32, expand=False),
                InvertedResidual(width=32, hidden=64, kernel=5),
            ),
            (
                ShuffleUnit(width=48, hidden=24, stride=2),
                ShuffleUnit(width=48, hidden=32, se=8),
                ShuffleUnit(width=64, hidden=32),
            ),
            (Conv(width=64, kernel=1), Classifier(classes=10, hidden=40)),
        ),
    )


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
