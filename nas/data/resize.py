"""How an image of any size becomes one of the input's size: stretch, crop or letterbox.

All sizes and offsets are whole pixels found by integer arithmetic, so that a device's own code can do the
same.
"""

from PIL import Image

from nas.task import Preprocessing

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the image at the input's height and width; the same pixels where it has that size already."""
    target = (preprocessing.width, preprocessing.height)
    if preprocessing.resize == "crop":
        image = image.crop(_middle(image.size, target))
    size = scaled_size(image.size, preprocessing)
    if image.size != size:
        image = image.resize(size, _FILTERS[preprocessing.interpolation])
    if size == target:
        return image
    fill = preprocessing.fill if image.mode == "L" else (preprocessing.fill,) * 3
    canvas = Image.new(image.mode, target, fill)
    canvas.paste(image, ((target[0] - size[0]) // 2, (target[1] - size[1]) // 2))
    return canvas


def scaled_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height that a whole image (for "crop": its middle part) of `size` is scaled to."""
    if preprocessing.resize != "letterbox":
        return preprocessing.width, preprocessing.height
    (width, height), (across, along) = size, (preprocessing.width, preprocessing.height)
    if width * along >= height * across:
        return across, max(1, (2 * height * across + width) // (2 * width))
    return max(1, (2 * width * along + height) // (2 * height)), along


def _middle(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box, left, top, right, bottom, of the largest middle part with the target's aspect ratio."""
    (width, height), (across, along) = size, target
    if width * along > height * across:
        inner = max(1, (2 * height * across + along) // (2 * along))
        left = (width - inner) // 2
        return left, 0, left + inner, height
    inner = max(1, (2 * width * along + across) // (2 * across))
    top = (height - inner) // 2
    return 0, top, width, top + inner
