#!/usr/bin/env python3
"""Scores a folder of images on a Ray cluster. See docs/deploy-ray.md.

    python deploy/ray/score.py --model model.onnx --images images --out scores --workers 4

Each worker is an actor with one long-lived `rgby score --worker` process. Ray Data sends it batches
of samples, and writes the results to Parquet files in --out: `id`, one column per class,
`predicted`, `error`. At the end the script checks that every id occurs exactly once.

All nodes need the Python package `ray[data]`, and rgby, the model and a local folder of images
under the same paths. Exit codes: 0 done; 1 done, but some samples failed; 2 fatal.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import ray
import ray.data

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class Worker:
    """An actor with an rgby process that scores batches until the job ends."""

    def __init__(self, command, stains, filesystem, restarts):
        """Starts rgby and waits until the model is loaded.

        `filesystem` reads the images; with None rgby reads them by path.
        """
        self.command, self.filesystem, self.restarts = command, filesystem, restarts
        kind = pa.string() if filesystem is None else pa.binary()
        self.schema = pa.schema([("id", pa.string())] + [(stain, kind) for stain in stains])
        self.process = self.requests = self.results = None
        self.with_restarts(self.start)

    def __call__(self, samples):
        """Returns the probabilities of a table of samples, in the same order of rows."""
        request = self.request(samples)
        return self.with_restarts(lambda: self.run(request))

    def start(self):
        """Starts rgby if it is not running."""
        if self.process is None:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self.results = pa.ipc.open_stream(self.process.stdout)
            self.requests = pa.ipc.new_stream(self.process.stdin, self.schema)

    def run(self, request):
        """Sends a request to rgby and returns its result."""
        self.start()
        self.requests.write_table(request, max_chunksize=max(request.num_rows, 1))
        self.process.stdin.flush()
        return pa.Table.from_batches([self.results.read_next_batch()])

    def with_restarts(self, work):
        """Calls `work`, and repeats it with a new process if the process dies.

        Exit code 2 is not retried, because rgby would refuse the same input again.
        """
        for left in range(self.restarts, -1, -1):
            try:
                return work()
            except (StopIteration, BrokenPipeError, pa.ArrowInvalid, pa.ArrowIOError) as error:
                if self.process is None:
                    raise
                code = self.end()
                if code == 2 or left == 0:
                    raise RuntimeError(
                        f"rgby ended with code {code}; see the log of this actor: {self.command}"
                    ) from error
                print(f"rgby ended with code {code}; restarting it", file=sys.stderr, flush=True)
        raise AssertionError("the last iteration returns or raises")

    def end(self):
        """Waits for the process to end and returns its exit code."""
        process, self.process = self.process, None
        process.stdin = None  # the pipe is broken; closing it would raise again
        try:
            return process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def request(self, samples):
        """Returns the request table: paths, or the bytes of the files."""
        samples = samples.select(self.schema.names).combine_chunks()
        if self.filesystem is None:
            return samples.cast(self.schema)
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            columns = [samples["id"]] + [
                pa.array(threads.map(self.read, samples[stain].to_pylist()), pa.binary())
                for stain in self.schema.names[1:]
            ]
        return pa.table(columns, schema=self.schema)

    def read(self, path):
        """Returns the bytes of a file, or None without a path."""
        if path is None:
            return None
        with self.filesystem.open_input_stream(path) as file:
            return file.read()


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0],
        epilog="Arguments after `--` are passed to each rgby: -- --threshold 0.5 --tta 8",
    )
    parser.add_argument("--model", required=True, help="model file; the same path on all nodes")
    parser.add_argument("--images", required=True, help="folder or its URL: s3://, gs://, …")
    parser.add_argument("--out", required=True, help="new folder or its URL")
    parser.add_argument("--workers", type=int, default=2, help="maximum number of rgby processes")
    parser.add_argument("--cpus", type=int, default=1, help="processors per worker")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs per worker; may be a fraction")
    parser.add_argument("--rows", type=int, default=256, help="samples in a batch")
    parser.add_argument("--stains", default="red,green,blue,yellow", help="channels of the model")
    parser.add_argument("--rgby", default="rgby", help="rgby program; the same path on all nodes")
    parser.add_argument("--address", help="cluster [default: a running one here, else a new one]")
    parser.add_argument(
        "--restarts", type=int, default=3, help="restarts of rgby for one batch"
    )
    parser.add_argument("rest", nargs="*", help="more arguments of `rgby score`, after --")
    return parser.parse_args()


def located(place):
    """Returns a file system and a path in it; the file system is None for a local path."""
    if "://" in place:
        return pyarrow.fs.FileSystem.from_uri(place)
    return None, str(pathlib.Path(place).resolve())


def listed(filesystem, folder, stains):
    """Returns a table of the samples in a folder, sorted by id: one column of paths per stain."""
    names = collections.defaultdict(dict)
    filesystem = filesystem or pyarrow.fs.LocalFileSystem()
    for file in filesystem.get_file_info(pyarrow.fs.FileSelector(folder)):
        stem, extension = os.path.splitext(file.base_name)
        # If several stains match the end of a name, the longest one wins.
        for stain in sorted(stains, key=len, reverse=True):
            sample = stem.removesuffix(f"_{stain}")
            if extension.lower() in EXTENSIONS and sample not in (stem, ""):
                if stain in names[sample]:
                    sys.exit(f"sample {sample} has two files for {stain}; remove one")
                names[sample][stain] = file.path
                break
    ids = sorted(names, key=str.encode)
    columns = [ids] + [[names[sample].get(stain) for sample in ids] for stain in stains]
    schema = pa.schema([(name, pa.string()) for name in ["id", *stains]])
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=schema)


def command(args):
    """Returns the command line of rgby, with one thread per processor that Ray assigns."""
    device = ["--device", "cuda"] if args.gpus else []
    threads = ["--decode-threads", str(args.cpus), "--sessions", "1"]
    threads += ["--intra-threads", str(args.cpus)]
    return [args.rgby, "--quiet", "score", "--worker", "--model", args.model] + (
        device + threads + args.rest
    )


def score(args, samples, filesystem):
    """Scores the samples and writes the Parquet files."""
    blocks = [samples.slice(at, args.rows) for at in range(0, samples.num_rows, args.rows)]
    results = ray.data.from_arrow(blocks).map_batches(
        Worker,
        batch_size=args.rows,
        batch_format="pyarrow",
        # If nodes are lost, the job continues with fewer workers.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=args.workers, initial_size=args.workers
        ),
        fn_constructor_args=(command(args), args.stains, filesystem, args.restarts),
        num_cpus=args.cpus,
        num_gpus=args.gpus,
    )
    out, folder = located(args.out)
    results.write_parquet(folder, filesystem=out)


def check(args, samples):
    """Checks that each id occurs exactly once. Returns the number of failed samples."""
    out, folder = located(args.out)
    files = pyarrow.dataset.dataset(folder, filesystem=out, format="parquet")
    table = files.to_table(columns=["id", "error"])
    wanted, found = set(samples["id"].to_pylist()), table["id"].to_pylist()
    if len(found) != len(wanted) or set(found) != wanted:
        lost, extra = wanted.difference(found), len(found) - len(set(found))
        sys.exit(f"{len(lost)} ids are missing in {args.out}, {extra} are duplicated")
    return len(table) - table["error"].null_count


def main():
    """Runs the job and returns the exit code."""
    args = arguments()
    args.stains = args.stains.split(",")
    out, folder = located(args.out)
    selector = pyarrow.fs.FileSelector(folder, allow_not_found=True)
    if (out or pyarrow.fs.LocalFileSystem()).get_file_info(selector):
        sys.exit(f"{args.out} is not empty; name a new folder")
    filesystem, images = located(args.images)
    samples = listed(filesystem, images, args.stains)
    if not samples.num_rows:
        sys.exit(f"no images <Id>_<{'|'.join(args.stains)}>.png in {args.images}")
    ray.init(address=args.address)
    start = time.perf_counter()
    score(args, samples, filesystem)
    seconds = time.perf_counter() - start
    failed = check(args, samples)
    ray.shutdown()  # flushes the output of the workers before the report
    report = {"samples": samples.num_rows, "failed": failed, "seconds": round(seconds, 2)}
    print(json.dumps(report))
    return 1 if failed else 0


if __name__ == "__main__":
    # sys.exit with a text exits with 1, which means failed samples here.
    try:
        CODE = main()
    except SystemExit as end:
        if isinstance(end.code, int):
            raise
        print(f"error: {end.code}", file=sys.stderr)
        CODE = 2
    except Exception as error:  # pylint: disable=broad-exception-caught
        print(f"error: {error}", file=sys.stderr)
        CODE = 2
    sys.exit(CODE)
