#!/usr/bin/env python3
"""Scores a folder of images on a Ray cluster. docs/deploy-ray.md explains it.

    python deploy/ray/score.py --model model.onnx --images images --out scores --workers 4

Each worker is an actor that holds one long-lived `rgby score --worker` process; Ray Data hands it
batches of samples, and writes what it answers to Parquet files in --out: `id`, a column of each
class, `predicted`, `error`. At the end every id must be there exactly once. Needs the Python
package `ray[data]` everywhere, and rgby, the model and a local folder of images under the same
paths on all nodes. Exit codes: 0 done; 1 done, but some samples failed; 2 fatal.
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
    """An actor: a process of rgby that scores whatever it is given until the job ends."""

    def __init__(self, command, stains, filesystem, restarts):
        """Starts rgby and waits until the model is loaded; `filesystem` reads the images, if that
        is not left to rgby."""
        self.command, self.filesystem, self.restarts = command, filesystem, restarts
        kind = pa.string() if filesystem is None else pa.binary()
        self.schema = pa.schema([("id", pa.string())] + [(stain, kind) for stain in stains])
        self.process = self.requests = self.answers = None
        self.with_restarts(self.start)

    def __call__(self, samples):
        """Answers a table of samples by one of probabilities, row by row."""
        request = self.request(samples)
        return self.with_restarts(lambda: self.ask(request))

    def start(self):
        """Starts rgby, unless it runs."""
        if self.process is None:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self.answers = pa.ipc.open_stream(self.process.stdout)
            self.requests = pa.ipc.new_stream(self.process.stdin, self.schema)

    def ask(self, request):
        """Has rgby answer."""
        self.start()
        self.requests.write_table(request, max_chunksize=max(request.num_rows, 1))
        self.process.stdin.flush()
        return pa.Table.from_batches([self.answers.read_next_batch()])

    def with_restarts(self, work):
        """Does it, with a new process if one dies meanwhile; but what rgby itself refuses (exit
        code 2) it would refuse again."""
        for left in range(self.restarts, -1, -1):
            try:
                return work()
            except (StopIteration, BrokenPipeError, pa.ArrowInvalid, pa.ArrowIOError) as error:
                if self.process is None:
                    raise
                code = self.end()
                if code == 2 or left == 0:
                    raise RuntimeError(
                        f"rgby ended with {code}, and this actor's log says why: {self.command}"
                    ) from error
                print(f"rgby ended with {code}; starting it anew", file=sys.stderr, flush=True)
        raise AssertionError("the last turn returns or raises")

    def end(self):
        """The exit code of a process of which no more answers come."""
        process, self.process = self.process, None
        process.stdin = None  # it is broken, which closing it would only say again
        try:
            return process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def request(self, samples):
        """What rgby is asked: paths as they are, or the files' bytes."""
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
        """A file's bytes; nothing where there is none."""
        if path is None:
            return None
        with self.filesystem.open_input_stream(path) as file:
            return file.read()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0],
        epilog="What follows `--` goes to each rgby: -- --threshold 0.5 --tta 8",
    )
    parser.add_argument("--model", required=True, help="as the nodes see it")
    parser.add_argument("--images", required=True, help="a folder, or its URL: s3://, gs://, …")
    parser.add_argument("--out", required=True, help="a new folder, or its URL")
    parser.add_argument("--workers", type=int, default=2, help="processes of rgby, at most")
    parser.add_argument("--cpus", type=int, default=1, help="processors of each")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each, or a share of one")
    parser.add_argument("--rows", type=int, default=256, help="samples that a worker gets at once")
    parser.add_argument("--stains", default="red,green,blue,yellow", help="the model's channels")
    parser.add_argument("--rgby", default="rgby", help="the program, as the nodes see it")
    parser.add_argument("--address", help="the cluster [default: the one here, or a new one]")
    parser.add_argument(
        "--restarts", type=int, default=3, help="how often rgby is begun again for a batch"
    )
    parser.add_argument("rest", nargs="*", help="more arguments of `rgby score`, after --")
    return parser.parse_args()


def located(place):
    """A file system and a path in it. A URL's is for the nodes too; a local one is None."""
    if "://" in place:
        return pyarrow.fs.FileSystem.from_uri(place)
    return None, str(pathlib.Path(place).resolve())


def listed(filesystem, folder, stains):
    """The samples in a folder as a table, by id: a column of each stain's path."""
    names = collections.defaultdict(dict)
    filesystem = filesystem or pyarrow.fs.LocalFileSystem()
    for file in filesystem.get_file_info(pyarrow.fs.FileSelector(folder)):
        stem, extension = os.path.splitext(file.base_name)
        # Of stains that both end a name, it belongs to the longer one.
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
    """How a worker starts rgby: with as many threads as Ray gives it processors."""
    device = ["--device", "cuda"] if args.gpus else []
    threads = ["--decode-threads", str(args.cpus), "--sessions", "1"]
    threads += ["--intra-threads", str(args.cpus)]
    return [args.rgby, "--quiet", "score", "--worker", "--model", args.model] + (
        device + threads + args.rest
    )


def score(args, samples, filesystem):
    """Runs the job."""
    blocks = [samples.slice(at, args.rows) for at in range(0, samples.num_rows, args.rows)]
    answers = ray.data.from_arrow(blocks).map_batches(
        Worker,
        batch_size=args.rows,
        batch_format="pyarrow",
        # With fewer nodes than there were, it goes on with fewer workers.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=args.workers, initial_size=args.workers
        ),
        fn_constructor_args=(command(args), args.stains, filesystem, args.restarts),
        num_cpus=args.cpus,
        num_gpus=args.gpus,
    )
    out, folder = located(args.out)
    answers.write_parquet(folder, filesystem=out)


def check(args, samples):
    """Proves that each id is there exactly once; how many samples failed."""
    out, folder = located(args.out)
    files = pyarrow.dataset.dataset(folder, filesystem=out, format="parquet")
    table = files.to_table(columns=["id", "error"])
    wanted, found = set(samples["id"].to_pylist()), table["id"].to_pylist()
    if len(found) != len(wanted) or set(found) != wanted:
        lost, extra = wanted.difference(found), len(found) - len(set(found))
        sys.exit(f"{len(lost)} ids are missing in {args.out}, {extra} are there twice")
    return len(table) - table["error"].null_count


def main():
    """Lists, scores, checks."""
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
    ray.shutdown()  # It prints what its workers say, which must not come behind the report.
    report = {"samples": samples.num_rows, "failed": failed, "seconds": round(seconds, 2)}
    print(json.dumps(report))
    return 1 if failed else 0


if __name__ == "__main__":
    # sys.exit with a text would be exit code 1, which stands for failed samples.
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
