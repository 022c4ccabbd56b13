import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nas.data.decode import FORMATS, SUFFIXES, UnreadableImage, decode
from nas.data.resize import resize
from nas.task import Preprocessing

RGB = Preprocessing(height=2, width=3)
GREY = Preprocessing(height=2, width=3, color="grey")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(stored, preprocessing=RGB):
    return np.asarray(decode(stored, preprocessing))


@pytest.fixture
def image(rng):
    return Image.fromarray(rng.integers(0, 256, (2, 3, 3), np.uint8))


def by_orientation(upright: np.ndarray) -> dict[int, np.ndarray]:
    """Return what is stored for each EXIF orientation of an upright image.

    The standard says where the stored row 0 and column 0 lie: 1 top left, 2 top right, 3 bottom right,
    4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    turned = upright.swapaxes(0, 1)
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_to_the_pixel(image, kind, orientation):
    upright = np.asarray(image)
    stored = Image.fromarray(np.ascontiguousarray(by_orientation(upright)[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(encoded(stored, kind, exif=exif, **options)), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_is_undone_while_it_is_reduced(orientation):
    upright = np.zeros((512, 1024, 3), np.uint8)
    upright[:256, :512] = (250, 0, 0)
    upright[:256, 512:] = (0, 250, 0)
    upright[256:, :512] = (0, 0, 250)
    stored = Image.fromarray(np.ascontiguousarray(by_orientation(upright)[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0)
    # Taken for upright, an image on its side would be reduced to an eighth.
    found = decode(data, Preprocessing(height=64, width=16))
    assert found.size == (256, 128)
    corners = np.asarray(found)[[10, 10, -10, -10], [10, -10, 10, -10]].astype(int)
    assert np.abs(corners - [(250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 0, 0)]).max() <= 3


@pytest.mark.parametrize(
    ("size", "preprocessing", "decoded"),
    [
        ((640, 480), Preprocessing(height=32, width=32), (160, 120)),
        ((640, 480), Preprocessing(height=121, width=121), (640, 480)),
        ((640, 480), Preprocessing(height=120, width=120), (320, 240)),
        ((640, 480), Preprocessing(height=20, width=80, resize="letterbox"), (80, 60)),
        ((1600, 200), Preprocessing(height=50, width=50, resize="crop"), (800, 100)),
        ((640, 480), Preprocessing(height=8, width=8, interpolation="nearest"), (640, 480)),
    ],
    ids=["quarter", "whole", "half", "letterbox-eighth", "crop-half", "nearest-whole"],
)
def test_jpeg_is_decoded_at_the_smallest_scale_that_leaves_twice_the_final_size(size, preprocessing, decoded):
    assert decode(encoded(Image.new("RGB", size), "JPEG"), preprocessing).size == decoded


def test_reduced_jpeg_scales_to_nearly_the_same_pixels(rng):
    smooth = Image.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8)).resize((800, 600), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=92)
    preprocessing = Preprocessing(height=48, width=64)
    reduced = np.asarray(resize(decode(data, preprocessing), preprocessing), np.int64)
    whole = np.asarray(resize(Image.open(io.BytesIO(data)), preprocessing), np.int64)
    assert decode(data, preprocessing).size == (200, 150)
    # Measured: mean 0.3, largest 2 of 255 on 12-megapixel files.
    assert np.abs(reduced - whole).mean() < 1
    assert np.abs(reduced - whole).max() <= 6


def test_grey_becomes_rgb_by_repetition(image):
    grey = np.asarray(image)[:, :, 0]
    assert np.array_equal(pixels(encoded(Image.fromarray(grey))), np.stack([grey] * 3, -1))


def test_rgb_becomes_grey_by_itu_601(rng):
    colors = rng.integers(0, 256, (50, 60, 3), np.uint8)
    luma = colors @ np.array([299, 587, 114]) / 1000
    # Pillow's fixed-point weights may round a value next to a half the other way.
    assert np.abs(pixels(encoded(Image.fromarray(colors)), GREY) - luma).max() <= 0.51


@pytest.mark.parametrize("fill", [0, 77, 255])
def test_transparent_pixels_show_the_fill_and_half_transparent_ones_half_of_it(fill):
    rgba = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        rgba.putpixel((x, 0), (200, 100, 0, alpha))
    found = pixels(encoded(rgba), Preprocessing(height=1, width=3, fill=fill))
    half = [value * 128 / 255 + fill * 127 / 255 for value in (200, 100, 0)]
    assert found[0, 0].tolist() == [fill] * 3
    assert np.abs(found[0, 1] - half).max() <= 1
    assert found[0, 2].tolist() == [200, 100, 0]


def test_grey_with_alpha_is_laid_over_the_fill():
    image = Image.new("LA", (2, 1))
    image.putpixel((0, 0), (90, 255))
    image.putpixel((1, 0), (90, 0))
    wanted = Preprocessing(height=1, width=2, color="grey", fill=200)
    assert pixels(encoded(image), wanted).tolist() == [[90, 200]]


def test_transparent_palette_color_shows_the_fill():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    wanted = Preprocessing(height=1, width=2, fill=255)
    assert pixels(encoded(image, "GIF", transparency=0), wanted).tolist() == [[[255] * 3, [40, 50, 60]]]
    assert pixels(encoded(image, "PNG"), wanted).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparent_color_key_of_an_rgb_png_shows_the_fill():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    data = encoded(image, "PNG", transparency=(1, 2, 3))
    assert pixels(data, Preprocessing(height=1, width=2, fill=9)).tolist() == [[[9, 9, 9], [4, 5, 6]]]


def test_one_bit_images_are_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image), Preprocessing(height=1, width=2)).tolist() == [[[0] * 3, [255] * 3]]
    assert pixels(encoded(image), Preprocessing(height=1, width=2, color="grey")).tolist() == [[0, 255]]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = pixels(encoded(image, "TIFF"), Preprocessing(height=8, width=8))
    assert found.reshape(-1, 3).tolist() == [[255, 0, 0]] * 64


def test_ycbcr_becomes_grey_over_rgb():
    data = encoded(Image.new("YCbCr", (3, 2), (128, 10, 200)), "TIFF")
    red, green, blue = pixels(data)[0, 0].astype(int)
    assert blue == 0  # cut off at 0, so that the luma of what is left is not the 128 that was stored
    assert abs(int(pixels(data, GREY)[0, 0]) - (299 * red + 587 * green + 114 * blue) / 1000) <= 0.51


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("preprocessing", [RGB, GREY], ids=["rgb", "grey"])
def test_16_bit_grey_keeps_its_top_8_bits(kind, preprocessing):
    values = np.array([[0, 255, 256], [25_700, 32_768, 65_535]], np.uint16)
    found = pixels(encoded(Image.fromarray(values), kind), preprocessing)
    assert (found if found.ndim == 2 else found[:, :, 1]).tolist() == [[0, 0, 1], [100, 128, 255]]


def test_12_bit_sensor_values_use_the_whole_range():
    values = np.array([[0, 15, 16], [2048, 4095, 5000]], np.uint16)
    found = pixels(encoded(Image.fromarray(values)), Preprocessing(height=2, width=3, color="grey", bits=12))
    assert found.tolist() == [[0, 0, 1], [128, 255, 255]]


def rgb48_png(values: np.ndarray) -> bytes:
    """Write a 16-bit RGB PNG by hand, which Pillow cannot."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_color_keeps_its_top_8_bits():
    values = np.array([[[0, 255, 256], [25_700, 32_768, 65_535]]], np.uint16)
    assert pixels(rgb48_png(values)).tolist() == [[[0, 0, 1], [100, 128, 255]]]


def test_the_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (3, 2), color) for color in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(pixels(data)[0, 0].astype(int) - (255, 0, 0)).max() <= 2, kind


@pytest.mark.parametrize(("shape", "channels"), [((2, 3), 1), ((2, 3, 1), 1), ((2, 3, 3), 3), ((2, 3, 4), 4)], ids=str)
def test_raw_pixels_follow_the_same_rules(rng, shape, channels):
    raw = rng.integers(0, 256, shape, np.uint8)
    if channels == 4:
        raw[..., 3] = 255
    wanted = np.stack([raw.reshape(2, 3)] * 3, -1) if channels == 1 else raw[..., :3]
    assert np.array_equal(pixels(raw), wanted)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_an_image_upright(image):
    data = encoded(image, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(pixels(data), np.asarray(image))


def lab() -> bytes:
    return encoded(Image.new("LAB", (3, 2)), "TIFF")


def floating() -> bytes:
    return encoded(Image.new("F", (3, 2)), "TIFF")


def wide() -> bytes:
    return encoded(Image.fromarray(np.array([[70_000]], np.int32)), "TIFF")


def truncated(kind: str) -> bytes:
    canvas = Image.new("RGB", (64, 64))
    ImageDraw.Draw(canvas).ellipse((5, 5, 50, 60), "red")
    data = encoded(canvas, kind)
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text", "no image of a known format"),
        (truncated("JPEG"), "truncated"),
        (truncated("PNG"), "truncated|broken|unrecognized"),
        (truncated("GIF"), "truncated"),
        (truncated("WEBP"), "no image of a known format|decod"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image of a known format"),
        (floating(), "floating-point"),
        (lab(), "CIELAB"),
        (wide(), "from 70000 to 70000, expected 16 bits"),
        (np.zeros((2, 3), np.float32), "uint8"),
        (np.zeros((0, 3), np.uint8), "uint8"),
        (np.zeros((2, 3, 2), np.uint8), "1, 3 or 4 channels"),
    ],
    ids=[
        "empty",
        "text",
        "jpeg",
        "png",
        "gif",
        "webp",
        "postscript",
        "float",
        "lab",
        "32-bit",
        "f4",
        "none",
        "two",
    ],
)
def test_what_has_no_rule_is_unreadable_with_a_reason(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, RGB)


def test_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "gone.png", RGB)


def test_every_suffix_is_of_a_format_that_is_read():
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "DIB", "MPO")}
    assert known >= SUFFIXES
