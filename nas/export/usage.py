"""The few lines of Python that classify one image with an exported file and nothing of this package."""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]  # Any: JSON values

_SCALE = {
    "stretch": "image = image.resize(({width}, {height}), Image.Resampling.{filter})",
    "crop": """\
w, h = image.size
if w * {height} > h * {width}:
    box = max(1, (2 * h * {width} + {height}) // (2 * {height})), h
else:
    box = w, max(1, (2 * w * {height} + {width}) // (2 * {width}))
left, top = (w - box[0]) // 2, (h - box[1]) // 2
image = image.crop((left, top, left + box[0], top + box[1]))
image = image.resize(({width}, {height}), Image.Resampling.{filter})""",
    "letterbox": """\
w, h = image.size
if w * {height} >= h * {width}:
    size = {width}, max(1, (2 * h * {width} + w) // (2 * w))
else:
    size = max(1, (2 * w * {height} + h) // (2 * h)), {height}
canvas = Image.new(image.mode, ({width}, {height}), {fill})
canvas.paste(image.resize(size, Image.Resampling.{filter}), (({width} - size[0]) // 2, ({height} - size[1]) // 2))
image = canvas""",
}


def usage(metadata: Record, file_name: str) -> str:
    """Return Python code that prints the class of the image in `image.png`.

    Args:
        metadata: What the file says about itself.
        file_name: Of the file, in the working directory.
    """
    return "\n".join(
        [
            "import json",
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image, ImageOps",
            "",
            f'session = onnxruntime.InferenceSession("{file_name}")',
            'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
            f'image = ImageOps.exif_transpose(Image.open("image.png")).convert("{_mode(metadata)}")',
            _scaling(metadata),
            *_pixels(metadata),
            'logits = session.run(["logits"], {"image": pixels})[0][0]',
            "print(classes[logits.argmax()])",
        ]
    )


def _mode(metadata: Record) -> str:
    return "L" if metadata["input"]["color"] == "grey" else "RGB"


def _scaling(metadata: Record) -> str:
    resize, fill = metadata["resize"], metadata["resize"]["fill"]
    return _SCALE[resize["rule"]].format(
        width=metadata["input"]["width"],
        height=metadata["input"]["height"],
        filter=resize["interpolation"].upper(),
        fill=fill if _mode(metadata) == "L" else (fill, fill, fill),
    )


def _pixels(metadata: Record) -> list[str]:
    given = metadata["input"]
    array = "np.asarray(image)[None]"
    if given["color"] == "grey":
        array = "np.asarray(image)[None, :, :, None]"
    elif given["color"] == "bgr":
        array = "np.asarray(image)[None, :, :, ::-1]"
    lines = [f"pixels = {array}  # {given['color']}, uint8"]
    if not metadata["normalization"]["inside"]:
        mean, std = (f"np.float32({metadata['normalization'][name]})" for name in ("mean", "std"))
        lines.append(f"pixels = (pixels.astype(np.float32) - {mean}) / {std}")
    order = ".transpose(0, 3, 1, 2)" if given["layout"] == "nchw" else ""
    return [*lines, f"pixels = np.ascontiguousarray(pixels{order})"]
