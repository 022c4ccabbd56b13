"""A person with the file, onnxruntime and Pillow gets the validation accuracy, exactly."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nas.candidate import Candidate
from nas.data.decode import RULES
from nas.data.image_folder import ImageFolder
from nas.data.load import load_task
from nas.data.options import DataOptions
from nas.export.onnx import OnnxExporter
from nas.export.running import run_file
from nas.protocols import ExportContext
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.build import build
from search_spaces.precision import QuantizationPlan

SCRIPT = Path(__file__).with_name("classify_alone.py")
ROTATED = 6


def save(image, path, number):
    """Save one image the way cameras and tools do: several formats, sizes, orientations, transparency, 16 bits."""
    kind = number % 6
    if kind == 0:
        image.save(path.with_suffix(".jpg"), quality=90)
    elif kind == 1:  # stored sideways, with a note to turn it
        exif = Image.Exif()
        exif[0x0112] = ROTATED
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=95, exif=exif)
    elif kind == 2:
        image.convert("L").save(path.with_suffix(".png"))
    elif kind == 3:
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(path.with_suffix(".png"))
    elif kind == 4:
        image.putalpha(Image.fromarray(np.uint8(255 - np.asarray(image.convert("L")) // 2)))
        image.save(path.with_suffix(".png"))
    else:
        image.quantize(64).save(path.with_suffix(".gif"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits in four classes as files of many kinds, with a validation folder of their own."""
    root, data = tmp_path_factory.mktemp("images"), load_digits()
    rng = np.random.default_rng(0)
    chosen = np.flatnonzero(data.target < 4)
    for number, index in enumerate(chosen[:600]):
        role = ("train", "train", "train", "val", "test")[number // 6 % 5]
        side = rng.integers(40, 120, 2)
        image = Image.fromarray(np.uint8(data.images[index] * 15)).resize(
            tuple(side.tolist()), Image.Resampling.BICUBIC
        )
        path = root / role / f"digit-{data.target[index]}" / f"{number:04d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(image.convert("RGB"), path, number)
    return root


NETWORK = (
    (Conv(width=16, stride=2, activation="relu"),),
    (Conv(width=24, stride=2, activation="relu"),),
    (Classifier(classes=4),),
)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"resize": "stretch", "interpolation": "bilinear"}, {}),
        ({"resize": "letterbox", "interpolation": "bicubic", "color": "bgr", "fill": 90}, {"layout": "nchw"}),
        ({"resize": "crop", "interpolation": "box", "color": "grey", "normalize": "train"}, {"input": "float32"}),
    ],
    ids=["stretched rgb", "letterboxed bgr, nchw", "cropped grey, float32"],
)
def test_script_alone_reproduces_the_validation_accuracy(folder, tmp_path, options, form):
    chosen = DataOptions(height=16, width=20, calibration_images=50, **options)
    task = load_task(ImageFolder(path=str(folder)), chosen, cache_dir=tmp_path / "cache", workers=1)
    architecture = Architecture(task.preprocessing.input_shape, NETWORK)
    network = build(architecture)
    train(network, task, TrainOptions(epochs=8), seed=0, folder=tmp_path / "training")
    candidate = Candidate(
        architecture=architecture, module=network, preprocessing=task.preprocessing, quantization=QuantizationPlan()
    )
    exported = OnnxExporter(**form).export(candidate, task, tmp_path / "files", ExportContext(decoding=tuple(RULES)))
    images = sorted((folder / "val").glob("*/*"))
    assert len(images) == len(task.validation) >= 100
    for file in exported.files:
        command = [sys.executable, "-I", str(SCRIPT), str(file.path), *map(str, images)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
        alone = sum(name == image.parent.name for name, image in zip(said, images, strict=True))
        predicted = run_file(file.path, task.validation.images).argmax(1)
        expected = int((predicted == task.validation.labels).sum())
        assert alone == expected
        assert expected / len(images) > 0.6  # of four classes: the network has learned something to reproduce
        names = np.asarray(task.classes)
        assert sorted(said) == sorted(names[predicted])


def test_script_imports_nothing_of_this_package():
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    used = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert used == {"json", "sys", "numpy", "onnxruntime", "PIL"}
