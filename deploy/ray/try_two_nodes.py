#!/usr/bin/env python3
"""Kills a node of a two-node Ray cluster during a job, and compares the result with `rgby score`.

    python deploy/ray/try_two_nodes.py --rgby target/release/rgby [--samples 5000]

Both nodes are on this machine. The script creates a small convolutional network with random weights
and synthetic samples, one of them broken, in a temporary folder. Then it runs

- one plain `rgby score`,
- a job on both nodes,
- a job during which an rgby process is killed (SIGKILL),
- a job during which the raylet of a node is killed.

It kills when the job is scoring and a third of the results is written. All results must be
bit-identical. Needs the Python packages ray[data], onnx and psutil. Exit code 0 means success.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnx.helper as oh
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import ray
from ray.cluster_utils import Cluster

STAINS = ["red", "green", "blue", "yellow"]
CLASSES = [f"class-{number}" for number in range(6)]
JOB = pathlib.Path(__file__).resolve().parent / "score.py"


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rgby", type=pathlib.Path, required=True)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--rows", type=int, default=50, help="samples in a batch")
    parser.add_argument("--side", type=int, default=32, help="side of the network's input")
    return parser.parse_args()


def write_model(folder, side):
    """Writes a network of two convolutions and a mean (weights: seed 0), and its description."""
    draw = np.random.default_rng(0)
    shapes = {"a": (32, 4, 3, 3), "b": (64, 32, 3, 3), "c": (64, len(CLASSES))}
    weights = [
        onnx.numpy_helper.from_array(
            (draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    nodes = [
        oh.make_node("Conv", ["image", "a"], ["conv1"], pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["conv1"], ["relu1"]),
        oh.make_node("Conv", ["relu1", "b"], ["conv2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        oh.make_node("Relu", ["conv2"], ["relu2"]),
        oh.make_node("GlobalAveragePool", ["relu2"], ["pooled"]),
        oh.make_node("Flatten", ["pooled"], ["flat"]),
        oh.make_node("MatMul", ["flat", "c"], ["logits"]),
        oh.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    image = oh.make_tensor_value_info("image", 1, ["N", len(STAINS), side, side])
    answer = oh.make_tensor_value_info("probabilities", 1, ["N", len(CLASSES)])
    graph = oh.make_graph(nodes, "small", [image], [answer], weights)
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    spec = f"classes = {json.dumps(CLASSES)}\nchannels = {json.dumps(STAINS)}\nsize = {side}\n"
    (folder / "model.toml").write_text(spec)


def write_samples(args, folder):
    """Writes synthetic samples, the first of which is unreadable, and returns their folder."""
    subprocess.run(
        [args.rgby, "--quiet", "synth", "--out", folder / "set", "--count", str(args.samples)]
        + ["--size", str(args.size)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    images = folder / "set/images"
    min(images.iterdir()).write_bytes(b"no image")
    return images


def plain(args, folder, images):
    """Runs one process on all processors. Returns its results by id and its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [args.rgby, "--quiet", "score", "--model", folder / "model.onnx"]
        + ["--spec", folder / "model.toml", "--images", images]
        + ["--out", folder / "out.csv", "--scores", folder / "scores.csv"],
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 1, "exactly the broken sample fails"
    kinds = {"Id": pa.string()} | {name: pa.float32() for name in CLASSES}
    options = pa.csv.ConvertOptions(column_types=kinds)
    scores = pa.csv.read_csv(folder / "scores.csv", convert_options=options)
    kinds = pa.csv.ConvertOptions(column_types={"Id": pa.string(), "Predicted": pa.string()})
    predicted = pa.csv.read_csv(folder / "out.csv", convert_options=kinds)["Predicted"]
    return scores.rename_columns(["id"] + CLASSES).append_column("predicted", predicted), seconds


def job(args, folder, images, name, address, during=lambda out: None):
    """Runs a job on the cluster and calls `during` after it has started.

    Returns the results by id, the seconds, and the samples per second.
    """
    out = folder / name
    words = [sys.executable, JOB, "--address", address, "--rgby", args.rgby.resolve()]
    words += ["--model", folder / "model.onnx", "--images", images, "--out", out]
    words += ["--workers", "2", "--rows", str(args.rows)]
    words += ["--", "--spec", folder / "model.toml"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        during(out)
        said = process.stdout.read()
    assert process.returncode == 1, f"{name}: exit code {process.returncode}"
    report = json.loads(said.strip().splitlines()[-1])
    assert report["failed"] == 1, report
    table = pa.dataset.dataset(out, format="parquet").to_table().sort_by("id")
    return table, report["seconds"], pace(out, args.samples)


def pace(out, samples):
    """Returns the samples per second between the first and the last file of a folder."""
    times = sorted(path.stat().st_mtime for path in out.glob("*.parquet"))
    return samples * (1 - 1 / len(times)) / (times[-1] - times[0])


def compare(expected, found, name):
    """Asserts that two tables are bit-identical."""
    assert found["error"].null_count == len(found) - 1
    assert found["id"].to_pylist() == expected["id"].to_pylist(), name
    for column in CLASSES:
        same = [
            table[column].combine_chunks().fill_null(-1).to_numpy().view(np.uint32)
            for table in (expected, found)
        ]
        assert np.array_equal(*same), f"{name}: {column}"
    words = found["predicted"].fill_null("").to_pylist()
    assert words == expected["predicted"].fill_null("").to_pylist(), name


def killer(args, node, what):
    """Returns a function that kills the raylet of a node or its rgby during a job.

    It waits until the node is scoring and a third of the results is written.
    """
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)

    def scoring():
        # A Ray worker is a child of its raylet, and rgby is a child of the worker.
        return [p for p in raylet.children(True) if "--worker" in p.cmdline()]

    def during(out):
        wanted = args.samples / args.rows / 3
        deadline = time.monotonic() + 300
        while not out.is_dir() or len(list(out.glob("*.parquet"))) < wanted or not scoring():
            assert time.monotonic() < deadline, "the job makes no progress"
            time.sleep(0.01)
        written = len(list(out.glob("*.parquet")))
        os.kill(raylet.pid if what == "raylet" else scoring()[0].pid, signal.SIGKILL)
        print(f"killed {what} with {written} of {args.samples // args.rows} files written")

    return during


def left_over(model):
    """Returns the rgby processes that still run."""
    return [p for p in psutil.process_iter(["cmdline"]) if model in (p.info["cmdline"] or [])]


def main():
    """Runs all jobs and compares their results."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_model(folder, args.side)
        images = write_samples(args, folder)
        plain(args, folder, images)  # loads all files into the file cache
        expected, alone = plain(args, folder, images)
        print(f"one plain process: {alone:.1f} s, {args.samples / alone:.0f} samples/s")
        # On each node one processor for the worker, and one for Ray itself.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        try:
            node = cluster.add_node(num_cpus=2)
            cluster.wait_for_nodes()
            found, seconds, rate = job(args, folder, images, "whole", cluster.address)
            compare(expected, found, "whole")
            print(f"two nodes: {seconds:.1f} s, {rate:.0f} samples/s between files, bit-identical")
            for what in ("rgby", "raylet"):
                during = killer(args, node, what)
                found, seconds, _ = job(args, folder, images, what, cluster.address, during)
                compare(expected, found, what)
                print(f"{what} killed: {seconds:.1f} s, complete, bit-identical")
            ray.init(address=cluster.address, log_to_driver=False)
            alive = sum(node["Alive"] for node in ray.nodes())
            ray.shutdown()
            assert alive == 1, f"{alive} nodes are alive"
        finally:
            cluster.shutdown()
        time.sleep(1)
        assert not left_over(str(folder / "model.onnx")), "rgby processes are left"
    print("passed")


if __name__ == "__main__":
    main()
