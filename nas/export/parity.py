"""Whether a file computes what the network computes: both are run on the same validation images."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from nas.candidate import Exported, Parity
from nas.export.running import run_file
from nas.task import Preprocessing, Split
from nas.train.evaluate import predict
from search_spaces.errors import ParityFailed
from search_spaces.precision import Precision

Logits = npt.NDArray[np.float32]

FLOAT_TOLERANCE = 1e-4
"""Largest difference of a float file's logit, as a share of the network's largest absolute one."""
INT8_AGREEMENT = 0.97
"""Least share of images on which an 8-bit file names the same class as the network."""
LEAST_IMAGES = 256
"""Images a comparison should have; with fewer it says so."""


def compare(
    path: Path,
    network: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    *,
    precision: Precision,
    images: int = 512,
    threads: int = 1,
) -> Parity:
    """Run a file and the network it was made from on the first images of a split.

    Args:
        path: The file; it is run at its own batch, or image by image where that is open.
        network: In float32, on the CPU.
        split: Validation images, in random order.
        preprocessing: How the network takes them.
        precision: Of the file, which decides what is asked of it.
        images: How many to compare; all there are if there are fewer.
        threads: Of both.

    Raises:
        MeasurementError: onnxruntime refuses the file.
    """
    shown = np.asarray(split.images[:images])
    expected = predict(network, shown, preprocessing, device="cpu", threads=threads)
    return judge(expected, run_file(path, shown, threads=threads), precision=precision)


def judge(expected: Logits, found: Logits, *, precision: Precision) -> Parity:
    """Compare logits of the network with those of a file, both `n x classes`."""
    for failure in (_shape_failure(expected, found), _not_finite(expected, found)):
        if failure:
            return _incomparable(len(expected), failure)
    difference, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    ordered = np.sort(expected.astype(np.float64), axis=1)
    ties = ordered[:, -1] - ordered[:, -2] < difference
    same = expected.argmax(1) == found.argmax(1)
    agreement = float(same.mean())
    dead = len(found) > 1 and bool((np.ptp(found, axis=0) <= 1e-6 * np.abs(found).max()).all())
    relative = _relative_rms(expected, found)
    if dead:
        failure = f"the file gives the same logits for all {len(found)} images: its output is dead"
    elif precision == "int8":
        failure = _int8_failure(agreement)
    else:
        failure = _float_failure(difference, scale, int((~same & ~ties).sum()))
    return Parity(
        images=len(found),
        max_abs_difference=difference,
        max_abs_logit=scale,
        relative_rms=relative,
        agreement=agreement,
        ties=int(ties.sum()),
        passed=not failure,
        reason=_sentence(failure, len(found), agreement, difference, scale),
    )


def require_parity(exported: Exported) -> None:
    """Raise ParityFailed unless every file of an export computes what the network computes."""
    failed = [file for file in exported.files if not file.parity.passed]
    if failed:
        told = "; ".join(f"{file.path.name}: {file.parity.reason}" for file in failed)
        raise ParityFailed(f"{told}; files left in {exported.folder}")


def _int8_failure(agreement: float) -> str:
    if agreement >= INT8_AGREEMENT:
        return ""
    return f"the 8-bit file names the network's class on {agreement:.1%} of images, {INT8_AGREEMENT:.0%} are needed"


def _float_failure(difference: float, scale: float, flipped: int) -> str:
    if difference > FLOAT_TOLERANCE * scale:
        return f"logits differ by up to {difference:.3g}, more than {FLOAT_TOLERANCE:g} of the largest, {scale:.3g}"
    if flipped:
        return f"{flipped} images get another class though their logits are no tie"
    return ""


def _sentence(failure: str, images: int, agreement: float, difference: float, scale: float) -> str:
    told = failure or (
        f"the file names the network's class on {agreement:.2%} of {images} validation images; logits differ by up to "
        f"{difference:.3g}, the largest is {scale:.3g}"
    )
    few = f" (only {images} images to compare, {LEAST_IMAGES} are asked for)" if images < LEAST_IMAGES else ""
    return told + few


def _relative_rms(expected: Logits, found: Logits) -> float:
    """Return the root mean square difference over that of the logits, each image's mean taken off both."""
    centered = expected - expected.mean(1, keepdims=True)
    error = found - found.mean(1, keepdims=True) - centered
    power = float(np.square(centered, dtype=np.float64).mean())
    return float(np.sqrt(np.square(error, dtype=np.float64).mean() / power)) if power else 0.0


def _shape_failure(expected: Logits, found: Logits) -> str:
    if expected.shape == found.shape:
        return ""
    return f"the file gives logits of shape {found.shape}, the network {expected.shape}"


def _not_finite(expected: Logits, found: Logits) -> str:
    for who, logits in (("network", expected), ("file", found)):
        wrong = int((~np.isfinite(logits)).any(1).sum())
        if wrong:
            return f"the {who} gives logits that are not finite for {wrong} of {len(logits)} images"
    return ""


def _incomparable(images: int, failure: str) -> Parity:
    return Parity(
        images=images,
        max_abs_difference=math.inf,
        max_abs_logit=math.inf,
        relative_rms=math.inf,
        agreement=0.0,
        ties=0,
        passed=False,
        reason=failure,
    )
