#!/usr/bin/env python3
"""Compares scoring a folder of images with rgby and with Python programs.

    benches/score.py --model model.onnx [--images DIR] [--device cuda] [--rgby target/release/rgby]
                     [--batch 8] [--repeat 2] [--rounds 3] [--peers python skimage]

Builds nothing. Needs onnxruntime, opencv-python-headless and scikit-image, and an rgby that was
built with --release. All programs run the same model on the same files with the same ONNX Runtime
and write one probability per class.

- python: a carefully written program. A pool of threads decodes and resizes with OpenCV, and stacks
  batches ahead of the session, which has all threads.
- skimage: the method of the reference experiments, one sample at a time: skimage's imread and
  resize, then the session.

The programs take turns and the fastest round of each counts, because other work on the machine
slows the program that runs at that moment. Without --images, rgby draws 48 samples of 512x512; a
round scores them --repeat times. Peak memory is that of the process. The probabilities of rgby and
the Python programs can only be compared by rank, because they resize by different rules.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--rgby", type=pathlib.Path, default=ROOT / "target/release/rgby")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    peers = ["python", "skimage"]
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers)
    parser.add_argument("--as", dest="role", choices=peers, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def session(args):
    """Returns a session with the model, and its preprocessing: channels, side, mean, deviation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    provider = "CPUExecutionProvider"
    if args.device == "cuda":
        onnxruntime.preload_dlls()
        # The defaults of rgby.
        wanted = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        provider = ("CUDAExecutionProvider", wanted)
    loaded = onnxruntime.InferenceSession(str(args.model), options, [provider])
    if args.device == "cuda" and loaded.get_providers()[0] != "CUDAExecutionProvider":
        sys.exit("ONNX Runtime fell back to the CPU")
    metadata = loaded.get_modelmeta().custom_metadata_map
    spec = json.loads(metadata["rgby"])["preprocess"]
    return loaded, spec


def paths(args, spec):
    """Returns a list of files for each sample."""
    channels = spec["channels"]
    names = sorted({path.name.rsplit("_", 1)[0] for path in args.images.iterdir()})
    samples = [[str(args.images / f"{name}_{channel}.png") for channel in channels] for name in names]
    return samples * args.repeat


def normalised(planes, spec):
    """Returns the normalized input of the model, [C, H, W] float32."""
    import numpy as np

    image = np.stack(planes).astype(np.float32) / 255
    mean = np.asarray(spec["mean"], np.float32)[:, None, None]
    return (image - mean) / np.asarray(spec["std"], np.float32)[:, None, None]


def python_scorer(args):
    """Scores batches that a pool of threads decodes ahead of the session."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    model, spec = session(args)
    side = spec["size"]

    def load(files):
        planes = [cv2.imread(file, cv2.IMREAD_GRAYSCALE) for file in files]
        planes = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in planes]
        return normalised(planes, spec)

    samples, rows = paths(args, spec), []
    with ThreadPoolExecutor(args.threads) as pool:
        ahead, waiting = deque(), iter(samples)
        for files in waiting:
            ahead.append(pool.submit(load, files))
            if len(ahead) == 3 * args.batch:
                break
        while ahead:
            batch = [ahead.popleft().result() for _ in range(min(args.batch, len(ahead)))]
            for files in waiting:
                ahead.append(pool.submit(load, files))
                if len(ahead) == 3 * args.batch:
                    break
            rows.extend(model.run(["probabilities"], {"image": np.stack(batch)})[0])
    return rows


def skimage_scorer(args):
    """Scores one sample at a time with skimage."""
    from skimage.io import imread
    from skimage.transform import resize

    model, spec = session(args)
    side, rows = spec["size"], []
    for files in paths(args, spec):
        planes = [resize(imread(f).astype(float), (side, side), order=1) for f in files]
        rows.extend(model.run(["probabilities"], {"image": normalised(planes, spec)[None]})[0])
    return rows


def in_this_process(args):
    """Scores with the program of --as. Writes the probabilities, prints speed and memory."""
    start = time.perf_counter()
    rows = {"python": python_scorer, "skimage": skimage_scorer}[args.role](args)
    with args.out.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"images_per_s": len(rows) / seconds, "peak_rss_mb": peak}))


def rgby_round(args, folder):
    """Returns images per second and peak memory of `rgby score`, with its start and end."""
    ids = folder / "ids.csv"
    command = [args.rgby, "-q", "score", "--model", args.model, "--images", args.images]
    command += ["--ids", ids, "--batch", str(args.batch), "--engine", "onnxruntime"]
    command += ["--device", args.device]
    command += ["--out", folder / "out.csv", "--scores", folder / "rgby.csv"]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"rgby ended with {os.waitstatus_to_exitcode(status)}")
    count = sum(1 for _ in ids.open()) - 1
    return {"images_per_s": count / seconds, "peak_rss_mb": usage.ru_maxrss * 1024 / 1e6}


def python_round(role, args, folder):
    """Returns images per second and peak memory of a Python program."""
    command = [sys.executable, __file__, "--as", role, "--out", folder / f"{role}.csv"]
    for name in ("model", "images", "device", "batch", "repeat", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main():
    """Prints one line per program."""
    args = arguments()
    if args.role:
        return in_this_process(args)
    os.environ.setdefault("ORT_DYLIB_PATH", str(library()))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if args.images is None:
            words = ["--count", "48", "--size", "512"]
            subprocess.run([args.rgby, "-q", "synth", "--out", folder / "drawn", *words], check=True)
            args.images = folder / "drawn/images"
        copies(args, folder)
        rounds = {who: [] for who in ["rgby", *args.peers]}
        for number in range(args.rounds):
            rounds["rgby"].append(rgby_round(args, folder))
            for peer in args.peers:
                if peer == "python" or number == 0:
                    rounds[peer].append(python_round(peer, args, folder))
            print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    best = {who: max(r["images_per_s"] for r in all_) for who, all_ in rounds.items()}
    for who, results in rounds.items():
        peak = max(result["peak_rss_mb"] for result in results)
        ratio = "" if who == "rgby" else f", rgby {best['rgby'] / best[who]:.2f} times"
        print(f"{who:8} {best[who]:7.2f} images/s, peak {peak:5.0f} MB{ratio}")
    return None


def library():
    """Returns the path of ONNX Runtime's library in this Python's wheel, which all programs use."""
    import onnxruntime

    capi = pathlib.Path(onnxruntime.__file__).parent / "capi"
    return next(capi.glob("libonnxruntime.so.1.*"))


def copies(args, folder):
    """Creates a folder of links with --repeat copies of each sample, and the list of all ids."""
    linked = folder / "images"
    linked.mkdir()
    names = set()
    for path in args.images.iterdir():
        name, channel = path.name.rsplit("_", 1)
        for copy in range(args.repeat):
            os.link(path, linked / f"{name}-{copy}_{channel}")
            names.add(f"{name}-{copy}")
    args.images, args.repeat = linked, 1
    (folder / "ids.csv").write_text("Id\n" + "\n".join(sorted(names)) + "\n")


if __name__ == "__main__":
    main()
