#!/usr/bin/env python3
"""PNG files of all kinds and the planes that they stand for: png_kinds.json.

pypng writes them: random pixels with 1 to 16 bits, gray, colour, alpha and palettes, one after the
other and interlaced. Fewer than 8 bits are stretched to 0-255, 16 bits are rounded, palettes are
looked up, colour stands for its brightest channel, alpha is ignored.

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
    """Random rows of pixels with so many values each."""
    return [[RANDOM.randint(0, most) for _ in range(WIDTH * values)] for _ in range(HEIGHT)]


def brightest(pixels, values):
    """The colour channel with the largest sum, the first of equals."""
    channels = [pixels[c::values] for c in range(3 if values > 2 else 1)]
    return max(channels, key=sum)


def to_8_bits(value, depth):
    """The nearest of 0-255."""
    most = 2**depth - 1
    return (value * 255 * 2 + most) // (2 * most)


def case(name, depth, interlace, **options):
    """One file as hexadecimal digits, and its plane."""
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
