"""A commented run file to start from, made for the images at hand."""

import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from nas.config import device_file
from nas.data import TaskSource
from nas.data.image_folder import ImageFolder
from nas.data.npz import Npz
from search_spaces.errors import DataError

_TEMPLATE = """\
# A run: images, device and budget in; a checked file that meets the budget and a report out.
#   nas check {name}    says what it would do        nas run {name}    does it, and goes on when interrupted
# `nas schema` prints every key; relative paths are relative to this file.
seed = 0

[task]                          # where labelled images are: {classes} classes, {images} images
type = "{kind}"
path = {path}

[data]                          # how they become inputs
height = {side}
width = {side}
color = "rgb"                   # rgb, bgr or grey
resize = "crop"                 # stretch, crop or letterbox
metric = "{metric}"
balance = "{balance}"
augment = ["shift"]             # add "flip_horizontal" unless left and right matter

[space]                         # MobileNet- and ShuffleNet-style stages
type = "mixed"

[device]                        # this machine under onnxruntime, one thread
{device}

[budget]                        # of the delivered file; leave out what does not matter
latency_ms = {latency}
# weight_bytes = 300_000
# peak_memory_bytes = 200_000
precision = "best"              # float32, int8, or the faster of both

[search]
trials = 48
batch = 8
rungs = {{ epochs = [1, 2, 4], keep = 0.5 }}

[train]
epochs = 30

[[stages]]                      # each is kept only if its gate says so
type = "prune"
target = 0.75
gate = {{ max_drop = 0.01 }}

[[stages]]
type = "distill"
gate = {{ max_drop = 0.005 }}

[[stages]]
type = "quantize"
gate = {{ max_drop = 0.01 }}

[export]
type = "onnx"

[pipeline]
finalists = 2
"""


def starting_config(images: Path, *, device: str, out: Path) -> str:
    """Return the text of a run file for a folder of images or an .npz file.

    Args:
        images: The data.
        device: A shipped device; empty for this machine.
        out: The run file, whose folder the path of the images becomes relative to.

    Raises:
        ConfigError: There is no such device.
        DataError: There are no labelled images there.
    """
    beside = out.resolve().parent
    if device:
        device_file(device, beside)
    if not images.exists():
        raise DataError(f"there is nothing at {images}")
    source: TaskSource = Npz(path=str(images)) if images.suffix == ".npz" else ImageFolder(path=str(images))
    found = source.read()
    counts = [int((found.train.labels == label).sum()) for label in range(len(found.classes))]
    uneven = max(counts) > 2 * max(min(counts), 1)
    return _TEMPLATE.format(
        name=out.name,
        classes=len(found.classes),
        images=sum(counts),
        kind="npz" if images.suffix == ".npz" else "image_folder",
        path=json.dumps(os.path.relpath(images.resolve(), beside), ensure_ascii=False),
        side=_side(source),
        metric="balanced_accuracy" if uneven else "accuracy",
        balance="class_weights" if uneven else "none",
        device=f"base = {json.dumps(device, ensure_ascii=False)}"
        if device
        else 'name = "this-machine"\nbackend = { type = "local" }',
        latency=1.0,
    )


def _side(source: TaskSource) -> int:
    """Return an input side that suits the images: that of the first one, between 16 and 96 pixels."""
    first = source.read().train.images[0]
    if isinstance(first, np.ndarray):
        height, width = first.shape[:2]
    else:
        with Image.open(first if isinstance(first, Path) else io.BytesIO(first)) as image:
            width, height = image.size
    return max(16, min(96, int(height), int(width)))
