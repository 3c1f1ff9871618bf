"""Writes channel_statistics.json: small gray images and the statistics of their pixels by numpy.

    python tests/golden/channel_statistics.py

Generated with numpy 2.4.6, seed 0.
"""

import json
from pathlib import Path

import numpy as np

CHANNELS = ["red", "green", "blue", "yellow"]
SIZES = [(5, 7), (6, 4), (9, 9)]


def image(random, channel, height, width):
    """Returns gray values with a different range for each channel, some black, some saturated."""
    values = random.integers(10 * channel, 60 + 60 * channel, (height, width))
    values[random.random((height, width)) < 0.1] = 0
    values[random.random((height, width)) < 0.05 * channel] = 255
    return values.astype(np.uint8)


def main():
    random = np.random.default_rng(0)
    samples = [
        {channel: image(random, index, *size) for index, channel in enumerate(CHANNELS)}
        for size in SIZES
    ]
    statistics = {}
    for channel in CHANNELS:
        pixels = np.concatenate([sample[channel].ravel() for sample in samples])
        scaled = pixels.astype(np.float64) / 255
        statistics[channel] = {
            "pixels": pixels.size,
            "mean": scaled.mean(),
            "std": scaled.std(),
            "min": int(pixels.min()),
            "max": int(pixels.max()),
            "saturated": float((pixels == 255).mean()),
            "black": float((pixels == 0).mean()),
        }
    samples = [{name: pixels.tolist() for name, pixels in sample.items()} for sample in samples]
    text = json.dumps({"samples": samples, "statistics": statistics})
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
