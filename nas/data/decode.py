"""How a stored image becomes 8-bit RGB or grey: one rule for every kind of file.

Pillow decodes; what it leaves open is settled here and written down in `RULES`, which exported files carry
along.
"""

import contextlib
import io
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from nas.data.resize import scaled_size
from nas.data.source import Pixels, StoredImage
from nas.task import Preprocessing
from search_spaces.errors import DataError

RULES_VERSION = 1
"""Part of every cache key; raised when a rule below or in `nas.data.resize` changes a pixel."""

RULES = (
    "Of files with several frames the first is used; color profiles are ignored.",
    "JPEG files are decoded at the smallest scale of 1, 1/2, 1/4, 1/8 that leaves twice the final sides.",
    "They are decoded at scale 1 for interpolation nearest.",
    "The EXIF orientation is applied; EXIF data that cannot be read count as upright.",
    "Grey images with 16 bits a pixel keep the top 8 of their significant bits, larger values are 255.",
    "Color images with 16 bits a channel keep the top 8.",
    "Transparent pixels are laid over an opaque grey background of level `fill`.",
    "Palette, 1-bit, YCbCr and CMYK images become RGB by Pillow's convert.",
    "Floating-point and CIELAB images are refused.",
    "Grey becomes RGB by repetition; RGB becomes grey by ITU-R 601-2: (299 R + 587 G + 114 B) / 1000.",
    "Color is settled before the image is scaled.",
)
"""What is done to an image before it is scaled, in order of what a reader would ask."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of the formats that are read; others never are, among them those that start a program."""

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k",
})  # fmt: skip
"""Suffixes, in lower case, of files that are taken for images."""

_GAP = 2
_SIDEWAYS = (5, 6, 7, 8)
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
# What Pillow's decoders raise for bytes they cannot follow.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


class UnreadableImage(DataError):  # noqa: N818 - names what it is about, and is counted more often than raised
    """One image cannot be decoded; the message is the reason, without the image's name."""


def decode(stored: StoredImage, preprocessing: Preprocessing) -> Image.Image:
    """Return an image of mode "RGB", or "L" for grey, upright and opaque, not yet scaled to the input.

    Large JPEG files come reduced, but never below twice the size they will be scaled to.

    Raises:
        UnreadableImage: Missing, empty, truncated, of no known format or of a kind without a rule.
    """
    try:
        image = _from_pixels(stored) if isinstance(stored, np.ndarray) else _open(stored, preprocessing)
        return _colored(_opaque(_eight_bits(image, preprocessing.bits), preprocessing.fill), preprocessing)
    except UnidentifiedImageError as error:
        raise UnreadableImage("no image of a known format") from error
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise UnreadableImage(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def _from_pixels(pixels: Pixels) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise UnreadableImage(f"pixels must be uint8, height x width [x channels], got {pixels.dtype} {pixels.shape}")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        raise UnreadableImage(f"pixels must have 1, 3 or 4 channels, got the shape {pixels.shape}")
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _open(stored: Path | bytes, preprocessing: Preprocessing) -> Image.Image:
    data = stored.read_bytes() if isinstance(stored, Path) else stored
    if not data:
        raise UnreadableImage("the file is empty")
    image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
    _reduce(image, preprocessing)
    image.load()
    with contextlib.suppress(*_BROKEN):  # the pixels are whole, only the note about their orientation is not
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _reduce(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let the JPEG decoder skip what scaling would throw away anyway."""
    if image.format not in ("JPEG", "MPO") or preprocessing.interpolation == "nearest":
        return
    width, height = image.size
    if _orientation(image) in _SIDEWAYS:
        across, along = scaled_size((height, width), preprocessing)
        wanted = (along, across)
    else:
        wanted = scaled_size((width, height), preprocessing)
    image.draft(None, (_GAP * wanted[0], _GAP * wanted[1]))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        return 1


def _eight_bits(image: Image.Image, bits: int) -> Image.Image:
    if image.mode in ("F", "LAB"):
        kind = "a floating-point image" if image.mode == "F" else "an image in CIELAB"
        raise UnreadableImage(f"{kind}, whose values have no stated scale; save it as 8-bit RGB or grey")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(f"grey values from {values.min()} to {values.max()}, expected 16 bits: 0 to 65535")
    return Image.fromarray(np.minimum(values >> (bits - 8), 255).astype(np.uint8))


def _opaque(image: Image.Image, fill: int) -> Image.Image:
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image
    front = image.convert("RGBA")
    background = Image.new("RGBA", front.size, (fill, fill, fill, 255))
    return Image.alpha_composite(background, front).convert("RGB")


def _colored(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")  # also on the way to grey, for which YCbCr has a shortcut
    wanted = "L" if preprocessing.color == "grey" else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
