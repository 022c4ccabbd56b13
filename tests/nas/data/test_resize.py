import numpy as np
import pytest
from PIL import Image

from nas.data.pixels import read_pixels
from nas.data.resize import resize, scaled_size
from nas.task import Preprocessing


def wanted(height: int, width: int, **options) -> Preprocessing:
    return Preprocessing(height=height, width=width, **options)


def test_an_image_of_the_inputs_size_keeps_its_pixels(rng):
    raw = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for rule in ("stretch", "crop", "letterbox"):
        assert np.array_equal(read_pixels(raw, wanted(5, 7, resize=rule)), raw)


def test_bgr_is_rgb_backwards_and_grey_has_one_channel(rng):
    raw = rng.integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(read_pixels(raw, wanted(5, 7, color="bgr")), raw[:, :, ::-1])
    assert read_pixels(raw, wanted(5, 7, color="grey")).shape == (5, 7, 1)


def test_stretch_averages_over_what_it_scales_down():
    raw = np.kron(np.array([[10, 20], [30, 40]]), np.ones((4, 6))).astype(np.uint8)
    assert read_pixels(raw, wanted(2, 2, color="grey", interpolation="box"))[:, :, 0].tolist() == [
        [10, 20],
        [30, 40],
    ]
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    # Any filter that skips pixels would give black or white here.
    smooth = read_pixels(checks.astype(np.uint8), wanted(8, 8, color="grey"))
    assert 120 <= smooth.min() <= smooth.max() <= 135


def test_nearest_takes_pixels_as_they_are(rng):
    raw = rng.integers(0, 256, (8, 8), np.uint8)
    assert np.array_equal(
        read_pixels(raw, wanted(4, 4, color="grey", interpolation="nearest"))[:, :, 0], raw[1::2, 1::2]
    )


@pytest.mark.parametrize(
    ("size", "target", "columns", "rows"),
    [
        ((9, 3), (3, 3), slice(3, 6), slice(0, 3)),
        ((3, 9), (3, 3), slice(0, 3), slice(3, 6)),
        ((10, 4), (2, 4), slice(4, 6), slice(0, 4)),
        ((4, 10), (4, 2), slice(0, 4), slice(4, 6)),
    ],
    ids=["wide", "tall", "wide-to-tall", "tall-to-wide"],
)
def test_crop_cuts_the_middle_out(rng, size, target, columns, rows):
    raw = rng.integers(0, 256, (size[1], size[0]), np.uint8)
    found = resize(Image.fromarray(raw), wanted(target[1], target[0], resize="crop", color="grey"))
    assert np.array_equal(np.asarray(found), raw[rows, columns])


def test_crop_scales_the_largest_middle_part(rng):
    image = Image.fromarray(rng.integers(0, 256, (40, 100), np.uint8))
    found = resize(image, wanted(10, 20, resize="crop", color="grey"))
    part = image.crop((10, 0, 90, 40)).resize((20, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(found), np.asarray(part))


@pytest.mark.parametrize(
    ("size", "target", "inner"),
    [
        ((40, 20), (10, 10), (10, 5)),
        ((20, 40), (10, 10), (5, 10)),
        ((40, 30), (32, 32), (32, 24)),
        ((1000, 1), (8, 8), (8, 1)),
        ((1, 1000), (8, 8), (1, 8)),
        ((3, 3), (8, 8), (8, 8)),
    ],
    ids=["wide", "tall", "4:3", "line", "column", "enlarged"],
)
def test_letterbox_scales_the_whole_image_and_fills_around_it(size, target, inner):
    preprocessing = wanted(target[1], target[0], resize="letterbox", color="grey", fill=7)
    found = np.asarray(resize(Image.new("L", size, 200), preprocessing))
    assert scaled_size(size, preprocessing) == inner
    left, top = (target[0] - inner[0]) // 2, (target[1] - inner[1]) // 2
    image = found[top : top + inner[1], left : left + inner[0]]
    assert (image == 200).all()
    assert (found == 7).sum() == found.size - image.size


@pytest.mark.parametrize("rule", ["stretch", "crop", "letterbox"])
def test_every_aspect_ratio_gives_the_inputs_size(rule):
    for size in [(1, 1), (1, 500), (500, 1), (31, 17), (3, 400)]:
        found = resize(Image.new("RGB", size, (9, 9, 9)), wanted(13, 9, resize=rule))
        assert found.size == (9, 13)
