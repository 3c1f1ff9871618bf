#!/usr/bin/env python3
"""Writes small images of all supported kinds, as seeds for the fuzz target `image`.

    pip install pillow numpy && python image_seeds.py corpus/image
"""

import base64
import json
import pathlib
import sys

import numpy
from PIL import Image

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"


def cases(name):
    """Yields the name and the file of each case in a golden file."""
    for case in json.loads((GOLDEN / name).read_text(encoding="utf-8"))["cases"]:
        yield case["name"].replace(" ", "-"), case["file"]


def main():
    """Writes the seeds into the folder given as argument."""
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, file in cases("png_kinds.json"):
        (out / f"{name}.png").write_bytes(bytes.fromhex(file))
    for name, file in cases("channel_tiffs.json"):
        (out / f"{name}.tif").write_bytes(base64.b64decode(file))
    noise = numpy.random.default_rng(0).integers(0, 256, (21, 18, 3), dtype=numpy.uint8)
    colour, gray = Image.fromarray(noise), Image.fromarray(noise[..., 0])
    deep = Image.fromarray(noise[..., 0].astype(numpy.uint16) * 257)
    for name, image in (("colour", colour), ("gray", gray)):
        image.save(out / f"{name}.jpg")
        image.save(out / f"{name}-progressive.jpg", progressive=True)
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            image.save(out / f"{name}-{compression}.tif", compression=compression)
    deep.save(out / "deep.tif")


if __name__ == "__main__":
    main()
