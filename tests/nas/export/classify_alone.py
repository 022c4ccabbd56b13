"""Classifies image files with onnxruntime and Pillow alone, from what the model file says of itself.

Usage: python classify_alone.py MODEL IMAGE...    prints one class name a line.

Written from the metadata only; it must not import nas, search_spaces or latency_models.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model, *images):
    session = onnxruntime.InferenceSession(model)
    about = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    for path in images:
        pixels = np.asarray(scaled(opened(path, about), about))
        fed = arranged(pixels, about)
        logits = session.run([about["output"]["name"]], {about["input"]["name"]: fed})[0]
        print(about["classes"][int(logits[0].argmax())])


def opened(path, about):
    """Decode as the sentences under `decoding` say."""
    resize, given = about["resize"], about["input"]
    image = Image.open(path)
    if image.format == "JPEG" and resize["interpolation"] != "nearest":
        sideways = image.getexif().get(0x0112, 1) >= 5
        size = image.size[::-1] if sideways else image.size
        target = target_size(cropped_size(size, about) if resize["rule"] == "crop" else size, about)
        target = target[::-1] if sideways else target
        image.draft(None, (2 * target[0], 2 * target[1]))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> (resize["bits"] - 8)
        image = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        front, fill = image.convert("RGBA"), resize["fill"]
        image = Image.alpha_composite(Image.new("RGBA", front.size, (fill, fill, fill, 255)), front).convert("RGB")
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if given["color"] == "grey" else "RGB")


def rounded(numerator, denominator):
    """Round halves up."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def cropped_size(size, about):
    (w, h), (width, height) = size, (about["input"]["width"], about["input"]["height"])
    return (rounded(h * width, height), h) if w * height > h * width else (w, rounded(w * height, width))


def target_size(size, about):
    (w, h), (width, height) = size, (about["input"]["width"], about["input"]["height"])
    if about["resize"]["rule"] != "letterbox":
        return width, height
    return (width, rounded(h * width, w)) if w * height >= h * width else (rounded(w * height, h), height)


def scaled(image, about):
    width, height = about["input"]["width"], about["input"]["height"]
    if about["resize"]["rule"] == "crop":
        size = cropped_size(image.size, about)
        left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
        image = image.crop((left, top, left + size[0], top + size[1]))
    size = target_size(image.size, about)
    if image.size != size:
        image = image.resize(size, Image.Resampling[about["resize"]["interpolation"].upper()])
    fill = about["resize"]["fill"]
    canvas = Image.new(image.mode, (width, height), fill if image.mode == "L" else (fill, fill, fill))
    canvas.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def arranged(pixels, about):
    """Return the one image as the file takes it."""
    given, normalization = about["input"], about["normalization"]
    batch = pixels[None, ..., None] if given["color"] == "grey" else pixels[None]
    if given["color"] == "bgr":
        batch = batch[..., ::-1]
    if not normalization["inside"]:
        batch = (batch.astype(np.float32) - np.float32(normalization["mean"])) / np.float32(normalization["std"])
    if given["layout"] == "nchw":
        batch = batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch.astype(given["dtype"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
