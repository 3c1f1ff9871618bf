#!/usr/bin/env python3
"""Checks that memory and speed of a long `rgby score` run stay constant.

    benches/steady.py --model model.onnx [--samples 10000] [--rgby target/release/rgby]

Builds nothing; needs Linux and an rgby that was built with --release. rgby draws 48 samples of
512x512, and links to them create the requested number of ids. During the run the script reads the
memory of rgby and its progress, from the parts that it writes, five times a second.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PART = 100


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--samples", type=int, default=10000)
    parser.add_argument("--rgby", type=pathlib.Path, default=ROOT / "target/release/rgby")
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args()


def resident_mb(pid):
    """Returns the current resident memory of a process in MB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def scored(manifest):
    """Returns the number of samples that the run has saved so far."""
    try:
        parts = json.loads(manifest.read_text())["parts"]
    except (FileNotFoundError, ValueError):
        return 0
    return sum(part["samples"] for part in parts)


def watch(process, manifest):
    """Returns (seconds, samples, MB) five times a second until the process ends."""
    start, course = time.perf_counter(), []
    while process.poll() is None:
        time.sleep(0.2)
        try:
            memory = resident_mb(process.pid)
        except FileNotFoundError:
            break
        if memory is not None:
            course.append((time.perf_counter() - start, scored(manifest), memory))
    return course


def pace(course, first, last):
    """Returns the samples per second between two counts of samples."""
    begin = next(point for point in course if point[1] >= first)
    end = next(point for point in course if point[1] >= last)
    return (end[1] - begin[1]) / (end[0] - begin[0])


def main():
    """Scores and prints memory and speed."""
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        words = ["--count", "48", "--size", "512"]
        subprocess.run([args.rgby, "-q", "synth", "--out", folder / "drawn", *words], check=True)
        drawn = sorted((folder / "drawn/images").iterdir())
        ids = sorted({path.name.rsplit("_", 1)[0] for path in drawn})
        images = folder / "images"
        images.mkdir()
        for number in range(args.samples):
            for channel in ("red", "green", "blue", "yellow"):
                source = folder / f"drawn/images/{ids[number % len(ids)]}_{channel}.png"
                os.link(source, images / f"{number:08}_{channel}.png")
        out = folder / "out.csv"
        command = [args.rgby, "-q", "score", "--model", args.model, "--images", images, "--out", out]
        command += ["--batch", str(args.batch), "--part-size", str(PART)]
        process = subprocess.Popen(command)
        course = watch(process, folder / "out.csv.parts/manifest.json")
        if process.returncode:
            sys.exit(f"rgby ended with exit code {process.returncode}")
    settled = [memory for _, count, memory in course if count >= 500]
    most = max(count for _, count, _ in course)
    first, last = pace(course, PART, PART + 1000), pace(course, most - 1000, most)
    print(f"{args.samples} samples in {course[-1][0]:.0f} s")
    print(f"memory after 500 samples {settled[0]:.0f} MB, then {min(settled):.0f} to {max(settled):.0f} MB")
    print(f"the first thousand {first:.2f} samples/s, the last {last:.2f}: {last / first:.3f}")


if __name__ == "__main__":
    main()
