"""Training on the CPU or one GPU: truncated, continued, distilled.

Read first: `options.py` (what can be set), `loop.py` (`train` and its checkpoints), `session.py` (one epoch).
Then `order.py` and `augment.py` (which pixels a step sees), `feed.py` (how they get to the device),
`evaluate.py` (what a network says), `checkpoint.py` (files), `given.py`, `inheritance.py` and
`batch_norm.py` (starting from other weights), `distillation.py` (teachers), `threads.py`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.train.augment import AUGMENTATIONS, augmentation, find_augmentations
    from nas.train.batch_norm import recalibrate_batch_norm
    from nas.train.checkpoint import load_network, load_weights, save_network
    from nas.train.distillation import LOSSES, Teacher
    from nas.train.evaluate import predict, predictions
    from nas.train.given import given_network, given_weights, start_from
    from nas.train.inheritance import Inherited, NothingFitsError, inherit
    from nas.train.loop import Epoch, TrainResult, train
    from nas.train.options import TrainOptions
    from nas.train.order import derived_seed
    from nas.train.session import TrainingDiverged
    from nas.train.threads import torch_threads

__all__ = [
    "AUGMENTATIONS",
    "Epoch",
    "Inherited",
    "LOSSES",
    "NothingFitsError",
    "Teacher",
    "TrainOptions",
    "TrainResult",
    "TrainingDiverged",
    "augmentation",
    "derived_seed",
    "find_augmentations",
    "given_network",
    "given_weights",
    "inherit",
    "load_network",
    "load_weights",
    "predict",
    "predictions",
    "recalibrate_batch_norm",
    "save_network",
    "start_from",
    "torch_threads",
    "train",
]

_HOME = {
    "AUGMENTATIONS": "nas.train.augment",
    "Epoch": "nas.train.loop",
    "Inherited": "nas.train.inheritance",
    "LOSSES": "nas.train.distillation",
    "Teacher": "nas.train.distillation",
    "TrainOptions": "nas.train.options",
    "TrainResult": "nas.train.loop",
    "TrainingDiverged": "nas.train.session",
    "augmentation": "nas.train.augment",
    "derived_seed": "nas.train.order",
    "find_augmentations": "nas.train.augment",
    "NothingFitsError": "nas.train.inheritance",
    "given_network": "nas.train.given",
    "given_weights": "nas.train.given",
    "inherit": "nas.train.inheritance",
    "start_from": "nas.train.given",
    "load_network": "nas.train.checkpoint",
    "load_weights": "nas.train.checkpoint",
    "predict": "nas.train.evaluate",
    "predictions": "nas.train.evaluate",
    "recalibrate_batch_norm": "nas.train.batch_norm",
    "save_network": "nas.train.checkpoint",
    "torch_threads": "nas.train.threads",
    "train": "nas.train.loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
