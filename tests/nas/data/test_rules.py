"""The rules as an exported file's user has them: words and Pillow, nothing of ours."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from nas.data.decode import RULES
from nas.data.pixels import read_pixels
from nas.task import Preprocessing


def by_the_rules(data: bytes, wanted: Preprocessing) -> np.ndarray:
    """Follow `RULES` and the docstring of `Preprocessing` step by step."""
    image = Image.open(io.BytesIO(data))
    sideways = image.getexif().get(0x0112, 1) >= 5
    width, height = image.size[::-1] if sideways else image.size
    if wanted.resize == "letterbox":
        scale = min(wanted.width / width, wanted.height / height)
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
    else:
        size = (wanted.width, wanted.height)
    if image.format == "JPEG":
        image.draft(None, (2 * size[1], 2 * size[0]) if sideways else (2 * size[0], 2 * size[1]))
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (wanted.fill,) * 3 + (255,)), image)
    image = image.convert("RGB")
    if wanted.color == "grey":
        image = image.convert("L")
    if wanted.resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    pixels = np.full((wanted.height, wanted.width, wanted.channels), wanted.fill, np.uint8)
    top, left = (wanted.height - size[1]) // 2, (wanted.width - size[0]) // 2
    scaled = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).reshape(size[1], size[0], -1)
    pixels[top : top + size[1], left : left + size[0]] = scaled[:, :, ::-1] if wanted.color == "bgr" else scaled
    return pixels


@pytest.fixture
def files(rng) -> list[bytes]:
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((400, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    transparent = smooth.copy()
    transparent.putalpha(Image.fromarray(rng.integers(0, 256, (300, 400), np.uint8)))
    found = []
    for image, kind, options in (
        (smooth, "JPEG", {}),
        (smooth, "JPEG", {"exif": exif}),
        (smooth.convert("L"), "JPEG", {}),
        (smooth.convert("CMYK"), "JPEG", {}),
        (smooth.quantize(20), "PNG", {}),
        (transparent, "PNG", {"exif": exif}),
        (Image.fromarray(rng.integers(0, 65536, (30, 40), np.uint16)), "PNG", {}),
    ):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


@pytest.mark.parametrize("color", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
def test_the_rules_in_words_give_the_same_pixels(files, color, resize):
    wanted = Preprocessing(height=32, width=32, color=color, resize=resize, fill=60)
    for data in files:
        assert np.array_equal(read_pixels(data, wanted), by_the_rules(data, wanted))


def test_rules_are_sentences():
    assert all(rule.endswith(".") for rule in RULES)
