"""Running an exported file: all it needs to know stands in the file."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latency_models.backends.local import open_session
from nas.export.metadata import Contract

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


def run_file(path: Path, images: Pixels, *, batch: int = 1, threads: int = 1) -> Logits:
    """Return the logits of images, `n x classes`, as onnxruntime on this machine computes them.

    Args:
        path: An exported file.
        images: Raw pixels `n x height x width x channels`, colors in the file's order, as a `Split` has them.
        batch: Images of one run where the file leaves that open; else the file decides.
        threads: Of one run.

    Raises:
        MeasurementError: onnxruntime refuses the file.
        RunError: The file was not written by this exporter.
        ValueError: There are no images, or they have another shape than the file takes.
    """
    session = open_session(path, threads=threads)
    contract = Contract.of(session.get_modelmeta().custom_metadata_map, path)
    return run_session(session, contract, images, batch=batch)


def run_session(session: "InferenceSession", contract: Contract, images: Pixels, *, batch: int = 1) -> Logits:
    """Return the logits of images through an open session; see `run_file`."""
    expected = (contract.preprocessing.height, contract.preprocessing.width, contract.preprocessing.channels)
    if not len(images) or images.shape[1:] != expected or images.dtype != np.uint8:
        raise ValueError(
            f"the file takes uint8 images of {expected} (height, width, channels), got {images.dtype} {images.shape}"
        )
    size = contract.form.batch or batch
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        fed = feed(contract, part if len(part) == size else _filled(part, size))
        parts.append(session.run(["logits"], {"image": fed})[0][: len(part)])
    return np.concatenate(parts).astype(np.float32, copy=False)


def feed(contract: Contract, images: Pixels) -> npt.NDArray[np.generic]:
    """Return pixels `n x height x width x channels` in the form the file takes."""
    if contract.form.dtype == "float32":
        normalized = contract.preprocessing.normalize(images)
        return np.ascontiguousarray(normalized.transpose(0, 2, 3, 1)) if contract.form.layout == "nhwc" else normalized
    return images if contract.form.layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _filled(images: Pixels, size: int) -> Pixels:
    """Return a whole batch: the last image again where there are too few."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
