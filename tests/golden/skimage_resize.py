#!/usr/bin/env python3
"""Writes a reference of scikit-image's resize without antialiasing: skimage_resize.json.

The images are noise over a gradient in 8 bits. `skimage.transform.resize` resizes them to a square
with order 1, mode 'constant', no antialiasing and the range kept, the defaults of version 0.13.
Images with several channels are resized together, `[H, W, C]`, as in the reference experiments. The
file stores them as `[C, H, W]`. Most images have no black pixel, to make border effects visible.

The script also implements the formula of version 0.13 (`warp` with half-pixel centres, zeros
outside, then clipping to the range of the input), which must agree with the installed version.

    pip install scikit-image numpy && python skimage_resize.py
"""

import json
import pathlib
import platform

import numpy
import skimage
from skimage.transform import resize

SEED = 13
HERE = pathlib.Path(__file__).resolve().parent
# width, height, channels, darkest value, side of the result
CASES = [
    (24, 24, 1, 0, 9),
    (24, 24, 1, 0, 37),
    (31, 18, 1, 40, 13),
    (10, 17, 1, 40, 25),
    (16, 16, 1, 40, 16),
    (12, 9, 3, 30, 15),
]


def by_formula(image, side):
    """Resizes one image `[H, W, C]` by the formula of version 0.13."""
    height, width, _ = image.shape
    framed = numpy.zeros((height + 2, width + 2, image.shape[2]))
    framed[1:-1, 1:-1] = image

    def taps(count):
        at = (numpy.arange(side) + 0.5) * count / side - 0.5
        low = numpy.floor(at).astype(int)
        return low + 1, at - low

    (y, dy), (x, dx) = taps(height), taps(width)
    dy, dx = dy[:, None, None], dx[None, :, None]
    above = framed[y][:, x] * (1 - dx) + framed[y][:, x + 1] * dx
    below = framed[y + 1][:, x] * (1 - dx) + framed[y + 1][:, x + 1] * dx
    return numpy.clip(above * (1 - dy) + below * dy, image.min(), image.max())


def main():
    """Writes the golden file."""
    rng = numpy.random.default_rng(SEED)
    cases = []
    for width, height, channels, darkest, side in CASES:
        y, x = numpy.mgrid[0:height, 0:width]
        gradient = 160.0 * (y / height + x / width) / 2.0
        noise = rng.uniform(0.0, 95.0, (height, width, channels))
        image = numpy.clip(numpy.rint(gradient[:, :, None] + noise), darkest, 255)
        # The channels of one image differ in their darkest pixel.
        image[:, :, 1:] = numpy.minimum(image[:, :, 1:] + 20.0, 255.0)
        out = resize(
            image,
            (side, side),
            order=1,
            mode="constant",
            anti_aliasing=False,
            preserve_range=True,
        )
        difference = numpy.abs(out - by_formula(image, side)).max()
        assert difference < 1e-9, difference
        planes = numpy.moveaxis(image, 2, 0).astype(int)
        cases.append(
            {
                "width": width,
                "height": height,
                "size": side,
                "input": planes.ravel().tolist(),
                "output": [round(v, 4) for v in numpy.moveaxis(out, 2, 0).ravel().tolist()],
            }
        )
    fields = {
        "generator": "tests/golden/skimage_resize.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "scikit-image": skimage.__version__,
        },
        "seed": SEED,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
    lines.append('"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    (HERE / "skimage_resize.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
