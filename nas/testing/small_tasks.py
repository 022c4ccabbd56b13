"""A task that is learned in a second, and networks that learned it: what stages and exporters are checked on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch

from nas.candidate import Candidate
from nas.task import Preprocessing, Split, Task
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.build import build

CLASSES = ("across", "along", "rising", "falling")
"""Directions of the stripes in an image."""

SIDE = 16
TRAIN = TrainOptions(epochs=2, batch_size=16)


@cache
def task() -> Task:
    """Return 128 training, 96 validation and 32 calibration images of stripes with noise; its test split is shut."""
    preprocessing = Preprocessing(height=SIDE, width=SIDE, color="rgb", mean=(120.0, 128.0, 130.0))
    training = _stripes("train", 128)
    return Task(
        name="stripes",
        classes=CLASSES,
        preprocessing=preprocessing,
        train=training,
        validation=_stripes("validation", 96),
        calibration=Split("calibration", training.images[:32], training.labels[:32]),
        open_test=_shut,
        data_hash="of the contracts",
    )


@cache
def candidate() -> Candidate:
    """Return a small trained network of blocks, which must not be changed."""
    return _trained(width=16, epochs=4)


@cache
def teacher() -> Candidate:
    """Return a larger trained network."""
    return _trained(width=24, epochs=4)


def copy_of(known: Candidate) -> Candidate:
    """Return a candidate with a module of its own."""
    assert known.architecture is not None
    module = build(known.architecture)
    module.load_state_dict(known.module.state_dict())
    return known.replace(module=module.eval())


@contextmanager
def other_global_seed() -> Iterator[None]:
    """Draw other numbers where somebody draws without a generator, for as long as the context lasts."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        np.random.seed(12345)
        try:
            yield
        finally:
            np.random.set_state(state)


def _trained(*, width: int, epochs: int) -> Candidate:
    architecture = Architecture(
        (3, SIDE, SIDE),
        (
            (Conv(width=width, stride=2),),
            (InvertedResidual(width=width, hidden=2 * width), InvertedResidual(width=2 * width, hidden=48, stride=2)),
            (Conv(width=32, kernel=1), Classifier(classes=len(CLASSES))),
        ),
    )
    network = build(architecture, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        module = train(network, task(), TRAIN.replace(epochs=epochs), seed=0, folder=Path(folder)).module
    return Candidate(architecture=architecture, module=module.eval(), preprocessing=task().preprocessing)


def _stripes(name: str, count: int) -> Split:
    rng = np.random.default_rng(len(name))
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    phases = np.stack([rows, columns, rows + columns, rows - columns])[labels] + rng.integers(0, 6, (count, 1, 1))
    bright = 128 + 80 * np.sin(phases * (2 * np.pi / 6))
    noisy = bright[..., None] + 25 * rng.standard_normal((count, SIDE, SIDE, 3))
    return Split(name, np.clip(noisy, 0, 255).astype(np.uint8), labels)


def _shut() -> Split:
    raise AssertionError("the test split must not be read: it is for the report alone")
