#!/usr/bin/env python3
"""Writes a reference of an antialiased bilinear reduction: resize.json.

A gradient with noise, 37 wide and 29 high, 8-bit gray, reduced to 16x16 by Pillow's
`Image.resize(..., BILINEAR)`: a triangle filter whose width follows the reduction factor.
`input` and `output` contain one list per row, from top to bottom.

    pip install pillow numpy && python resize.py
"""

import json
import pathlib
import platform

import numpy
import PIL
from PIL import Image

SEED = 37
WIDTH, HEIGHT, SIDE = 37, 29, 16
HERE = pathlib.Path(__file__).resolve().parent


def main():
    """Writes the golden file."""
    rng = numpy.random.default_rng(SEED)
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    gradient = 200.0 * (y / (HEIGHT - 1) + x / (WIDTH - 1)) / 2.0
    noise = rng.uniform(-60.0, 60.0, gradient.shape)
    pixels = numpy.clip(numpy.rint(gradient + noise + 20.0), 0, 255).astype(numpy.uint8)
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)

    fields = {
        "generator": "tests/golden/resize.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
        "seed": SEED,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
    for key, image in (("input", pixels), ("output", numpy.asarray(small))):
        rows = ",\n".join(json.dumps(row) for row in image.tolist())
        lines.append(f'"{key}": [\n{rows}\n]')
    (HERE / "resize.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
