#!/usr/bin/env python3
"""Writes PNG files of all kinds and their expected planes: png_kinds.json.

pypng writes random pixels with 1 to 16 bits, gray, color, alpha and palettes, sequential and
interlaced. In the expected plane, fewer than 8 bits are scaled to 0-255, 16 bits are rounded, and
palettes are looked up. A color image becomes its brightest channel. Alpha is ignored.

    pip install pypng==0.20220715.0 && python png_kinds.py
"""

import io
import json
import pathlib
import random
from importlib.metadata import version

import png

WIDTH, HEIGHT = 11, 9
SEED = 0
RANDOM = random.Random(SEED)
HERE = pathlib.Path(__file__).resolve().parent


def rows(values, most):
    """Returns random rows of pixels with `values` values each, from 0 to `most`."""
    return [[RANDOM.randint(0, most) for _ in range(WIDTH * values)] for _ in range(HEIGHT)]


def brightest(pixels, values):
    """Returns the color channel with the largest sum; of equal ones the first."""
    channels = [pixels[c::values] for c in range(3 if values > 2 else 1)]
    return max(channels, key=sum)


def to_8_bits(value, depth):
    """Scales a value of `depth` bits to the nearest of 0-255."""
    most = 2**depth - 1
    return (value * 255 * 2 + most) // (2 * most)


def case(name, depth, interlace, **options):
    """Returns one file as hexadecimal digits, and its plane."""
    values = (1 if options["greyscale"] else 3) + int(options.get("alpha", False))
    table = options.get("palette")
    image = rows(1, len(table) - 1) if table else rows(values, 2**depth - 1)
    out = io.BytesIO()
    png.Writer(WIDTH, HEIGHT, bitdepth=depth, interlace=interlace, **options).write(out, image)
    flat = [value for row in image for value in row]
    if table:
        depth, values = 8, len(table[0])
        flat = [value for index in flat for value in table[index]]
    plane = [to_8_bits(value, depth) for value in brightest(flat, values)]
    return {"name": name, "file": out.getvalue().hex(), "plane": plane}


def main():
    """Writes all cases."""
    colours = [tuple(RANDOM.randint(0, 255) for _ in range(3)) for _ in range(13)]
    clear = [(*colour, RANDOM.randint(0, 255)) for colour in colours]
    cases = []
    for interlace in (False, True):
        kind = "interlaced" if interlace else "plain"
        for depth in (1, 2, 4, 8, 16):
            cases.append(case(f"{kind} gray {depth}", depth, interlace, greyscale=True))
        for depth in (8, 16):
            for gray, alpha in ((True, True), (False, False), (False, True)):
                name = f"{kind} {'gray' if gray else 'colour'}{' alpha' if alpha else ''} {depth}"
                cases.append(case(name, depth, interlace, greyscale=gray, alpha=alpha))
        for name, table in (("palette", colours), ("clear palette", clear)):
            options = {"greyscale": False, "palette": table}
            cases.append(case(f"{kind} {name}", 4, interlace, **options))
    golden = {"pypng": version("pypng"), "seed": SEED, "width": WIDTH, "height": HEIGHT}
    text = json.dumps({**golden, "cases": cases})
    (HERE / "png_kinds.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
