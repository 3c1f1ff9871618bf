#!/usr/bin/env python3
"""Compares image preparation (files to network input) of rgby, OpenCV and Pillow on one thread.

A sample is four gray 8-bit PNG files of 512x512 that become 224x224. rgby also normalizes them to
float32. For the other two only reading and resizing is timed (OpenCV: imread + resize, bilinear;
Pillow: open + resize, bilinear with antialiasing like rgby). The input is the files that rgby
draws, and the same pixels written by Pillow in the formats of --kinds.

The programs take turns, and the best round of each counts.

    cargo build --release && pip install opencv-python-headless pillow && python benches/preprocess.py
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import cv2
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent


def in_16_bits(image):
    """Returns the image scaled to 16 bits."""
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def tinted(image):
    """Returns the image in green, like the public JPEGs of the Human Protein Atlas."""
    black = Image.new("L", image.size)
    return Image.merge("RGB", (black, image, black))


# Formats that Pillow writes: extension, conversion before writing, options.
KINDS = {
    "png": ("png", None, {}),
    "png16": ("png", in_16_bits, {}),
    "jpeg": ("jpg", None, {"quality": 92}),
    "jpeg-tinted": ("jpg", tinted, {"quality": 92}),
    "tiff": ("tif", None, {}),
    "tiff16": ("tif", in_16_bits, {}),
    "tiff-lzw": ("tif", None, {"compression": "tiff_lzw"}),
    "tiff-deflate": ("tif", None, {"compression": "tiff_adobe_deflate"}),
}


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rgby", type=pathlib.Path, default=ROOT / "target/release/rgby")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--kinds", nargs="*", default=["png"], choices=KINDS)
    return parser.parse_args()


def opencv(path, side):
    """Reads and resizes one image."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def pillow(path, side):
    """Reads and resizes one image."""
    with Image.open(path) as image:
        return image.resize((side, side), Image.Resampling.BILINEAR)


def python_speed(function, images, args):
    """Returns the samples per second of one round."""
    files = sorted(images.iterdir())
    start = time.perf_counter()
    for path in files:
        function(path, args.input_size)
    return len(files) / 4 / (time.perf_counter() - start)


def rgby_speed(images, args):
    """Returns the samples per second of one round on one core."""
    size = ["--input-size", str(args.input_size), "--steps", "1"]
    command = [args.rgby, "-q", "bench", "--preprocess", "--images", images, *size, "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(shown)["preprocess_images_per_s_per_core"]


def written(images, kind):
    """Writes the images in another format and returns the folder."""
    extension, change, options = KINDS[kind]
    folder = images.parent / kind
    folder.mkdir()
    for path in images.iterdir():
        with Image.open(path) as image:
            changed = change(image) if change else image
            changed.save(folder / f"{path.stem}.{extension}", **options)
    return folder


def main():
    """Prints a table for each kind of file."""
    args = arguments()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder) / "drawn"
        words = ["--count", str(args.samples), "--size", str(args.size)]
        subprocess.run([args.rgby, "-q", "synth", "--out", drawn, *words], check=True)
        folders = [("png as rgby writes it", drawn / "images")]
        for kind in args.kinds:
            folders.append((f"{kind} by Pillow", written(drawn / "images", kind)))
        for name, images in folders:
            best = {"rgby": 0.0, "OpenCV": 0.0, "Pillow": 0.0}
            for _ in range(args.rounds):
                for who, speed in (
                    ("rgby", lambda: rgby_speed(images, args)),
                    ("OpenCV", lambda: python_speed(opencv, images, args)),
                    ("Pillow", lambda: python_speed(pillow, images, args)),
                ):
                    best[who] = max(best[who], speed())
            size = sum(path.stat().st_size for path in images.iterdir()) / args.samples / 4e3
            print(f"{name}, {size:.0f} kB per file: samples per second on one core")
            for who, speed in best.items():
                ratio = "" if who == "rgby" else f", rgby {best['rgby'] / speed:.2f} times"
                print(f"  {who:7} {speed:6.1f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
