import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nas.export.manifest import read_exported
from nas.export.model_card import add_results
from nas.export.running import run_file
from nas.export.usage import usage
from search_spaces.measurement import Measurement


@pytest.fixture
def folder(mobile, tmp_path):
    return shutil.copytree(mobile.exported.folder, tmp_path / "files")


def test_card_says_what_was_made_and_what_was_not_measured(mobile):
    text = (mobile.exported.folder / "model_card.md").read_text()
    assert text.startswith("# colored digits: a classifier of 10 classes\n")
    assert mobile.candidate.architecture.key in text
    for file in mobile.exported.files:
        assert f"- `{file.path.name}`: {file.parity.reason}." in text
        assert f"{file.num_bytes:,} bytes (counted)" in text
    assert "Latency was not measured on these files." in text
    assert "- The first rule.\n- The second rule.\n" in text


def test_added_figures_stand_in_manifest_and_card(folder):
    latency = Measurement(value=0.25, unit="ms", origin="measured", lower=0.24, upper=0.27, source="this host")
    add_results(folder, ships="int8", history=(), figures={"model.int8.onnx": {"latency_ms": latency}})
    row = next(line for line in (folder / "model_card.md").read_text().splitlines() if "latency_ms" in line)
    assert row == "| latency_ms | not measured | 0.25 [0.24, 0.27] at 90% ms (measured, this host) |"
    assert "Latency holds for the device" in (folder / "model_card.md").read_text()
    files = read_exported(folder).manifest["files"]
    assert Measurement.from_dict(files[1]["figures"]["latency_ms"]) == latency
    assert "weight_bytes" in files[1]["figures"]


def test_figures_of_an_unknown_file_are_refused(folder):
    with pytest.raises(KeyError, match=r"model.tflite"):
        add_results(folder, ships="int8", history=(), figures={"model.tflite": {}})


def test_code_on_the_card_classifies_an_image(folder, task):
    Image.fromarray(task.validation.images[0]).save(folder / "image.png")
    code = (folder / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 15
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    predicted = run_file(folder / "model.int8.onnx", task.validation.images[:1]).argmax()
    assert done.stdout.strip() == task.classes[predicted]


def pixels_of_snippet(metadata, image, folder):
    """Run the snippet up to the array that it feeds."""
    image.save(folder / "image.png")
    lines = usage(metadata, "model.onnx").splitlines()
    kept = [line.replace("image.png", str(folder / "image.png")) for line in lines if "session" not in line]
    names = {}
    exec("\n".join(line for line in kept if "classes" not in line), names)
    return names["pixels"]


@pytest.mark.parametrize("size", [(50, 31), (24, 16), (7, 40), (300, 10), (25, 17)])
@pytest.mark.parametrize("rule", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "grey"])
def test_code_prepares_images_as_training_did(tmp_path, rng, size, rule, color):
    from nas.data.pixels import read_pixels
    from nas.export.metadata import RESIZING
    from nas.task import Preprocessing

    preprocessing = Preprocessing(height=16, width=24, color=color, resize=rule, interpolation="bicubic", fill=40)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    metadata = {
        "input": {"dtype": "uint8", "layout": "nhwc", "height": 16, "width": 24, "color": color},
        "resize": {"rule": rule, "interpolation": "bicubic", "fill": 40, "how": RESIZING[rule]},
        "normalization": {"inside": True, "mean": [], "std": []},
    }
    found = pixels_of_snippet(metadata, Image.fromarray(pixels), tmp_path)
    assert np.array_equal(found[0], read_pixels(pixels, preprocessing))


def test_code_normalizes_and_turns_axes_where_the_file_does_not(tmp_path, rng):
    from nas.task import Preprocessing

    preprocessing = Preprocessing(height=16, width=24, mean=(1.5, 2.25, 3.0), std=(50.0, 60.0, 71.0))
    pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    metadata = {
        "input": {"dtype": "float32", "layout": "nchw", "height": 16, "width": 24, "color": "rgb"},
        "resize": {"rule": "stretch", "interpolation": "bilinear", "fill": 0, "how": ""},
        "normalization": {"inside": False, "mean": list(preprocessing.mean), "std": list(preprocessing.std)},
    }
    found = pixels_of_snippet(metadata, Image.fromarray(pixels), tmp_path)
    assert np.array_equal(found, preprocessing.normalize(pixels[None]))
