"""Converts real-size exports of all supported networks and prints a table of differences.

For each network, exporter, BatchNorm kept or folded, and opset, the script creates the ONNX file
with random weights and runs `rgby convert` and `rgby export`. It then compares pooled features in
ONNX Runtime: those of the exporter's file on an RGB batch, and those of rgby's file on the same
batch with a noisy fourth plane. A cell contains the largest difference over the largest feature (at
most 1e-4), or the number of a note with the reason why there is none.

    python matrix.py --rgby ../../target/release/rgby --out matrix.md [--only "timm resnet50"]

A row whose library is missing is marked. Run the script once in an environment with PyTorch
(`--only torch`, `--only timm`) and once in one with TensorFlow (`--only Keras`). The exit code is 1
if a difference is too large, or if convert failed other than by refusing a file. Seed 0. Tested
with the versions of `small.py` and `small_keras.py`, torchvision 0.29.2 and timm 1.0.31.
"""

import argparse
import dataclasses
import gc
import importlib.util
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy
import onnx
import onnxruntime

import common

SEED = 0
OPSETS = (11, 13, 17, 18, 20)
# The highest opset of tf2onnx 1.17.
TF2ONNX_LAST_OPSET = 18
# Runs a command from a small process, because a child's peak memory includes that of its parent.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr,
                  "seconds": time.monotonic() - start, "bytes": usage.ru_maxrss * 1024}))
"""


class NotMade(Exception):
    """The exporter cannot write this variant."""


class Refused(Exception):
    """rgby refuses to convert the file, with a reason."""


@dataclasses.dataclass
class Row:
    """One network and one exporter; `make` creates the network, `save` exports it."""

    title: str
    library: str
    make: Callable
    save: Callable
    last_opset: int = OPSETS[-1]


def torch_model(network):
    """Returns a torch network with random weights."""
    script = common.load_export_script()
    if network == "timm resnet50":
        import timm

        arch = script.ARCHS["resnet50"]
        model = timm.create_model("resnet50", pretrained=False)
    else:
        arch = script.ARCHS[network]
        model = arch.make(False)
    script.randomise(model, arch, SEED)
    model.image_size = arch.image_size
    return model.eval()


def save_torch(model, exporter, folded, opset):
    """Returns the ONNX model, after checking that it is folded or not as requested."""
    import torch

    try:
        proto = common.torch_export(model, model.image_size, exporter, folded, opset)
        norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        common.check_folding(proto, norms, folded)
    except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as error:
        raise NotMade(first_sentence(str(error))) from error
    if proto.opset_import[0].version != opset:
        raise NotMade(f"{exporter} wrote opset {proto.opset_import[0].version} instead")
    return proto


def keras_model(name):
    """Returns a network of keras.applications with random weights."""
    import keras

    keras.backend.clear_session()
    model = getattr(keras.applications, name)(weights=None)
    rng = numpy.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.beta.shape
            if layer.gamma is not None:
                # Otherwise the sum over ResNet's blocks grows with each block.
                shrink = 0.25 if layer.name.endswith("_3_bn") else 1.0
                layer.gamma.assign(shrink * rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.1, size))
            layer.moving_mean.assign(rng.normal(0, 0.1, size))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, size))
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            shape = layer.kernel.shape
            layer.kernel.assign(rng.normal(0, (2 / numpy.prod(shape[:-1])) ** 0.5, shape))
            if layer.bias is not None:
                layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return model


def rows():
    """Yields every row of the table."""
    for title, library, network in [
        ("torchvision resnet50", "torchvision", "resnet50"),
        ("timm resnet50", "timm", "timm resnet50"),
        ("timm inception_resnet_v2", "timm", "inception-resnet-v2"),
        ("torchvision densenet121", "torchvision", "densenet121"),
        ("torchvision resnet50-v1", "torchvision", "resnet50-v1"),
    ]:
        for exporter in ("legacy", "dynamo"):
            for folded in (False, True):
                yield Row(
                    f"{title}, {exporter}, {'folded' if folded else 'kept'}", library,
                    lambda network=network: torch_model(network),
                    lambda model, opset, exporter=exporter, folded=folded:
                        save_torch(model, exporter, folded, opset),
                )
    for name in ("ResNet50", "InceptionResNetV2", "DenseNet121"):
        # tf2onnx has no option to keep BatchNorm.
        yield Row(f"Keras {name}, tf2onnx, folded", "tensorflow",
                  lambda name=name: keras_model(name), common.keras_export, TF2ONNX_LAST_OPSET)


def launch(command):
    """Runs `command`. Returns exit code, output, wall time and peak memory."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *map(str, command)],
        capture_output=True, text=True, check=True,
    )
    return json.loads(done.stdout)


def first_sentence(text):
    """Returns the first sentence of a message, without its label, for a cell of the table."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or ["no message"]
    errors = [line for line in lines if line.startswith("error:")]
    line = (errors or lines)[0].removeprefix("error:").strip()
    return line.split(". ")[0].rstrip(".").replace("|", "/")


def run_rgby(command, path):
    """Runs rgby on a file derived from `path`. Raises `Refused` if convert exits with code 2."""
    done = launch(command)
    if done["code"] == 0:
        return done
    sentence = first_sentence(done["err"]).replace(f"{path}: ", "")
    if command[1] == "convert" and done["code"] == 2:
        raise Refused(sentence)
    raise RuntimeError(f"{command[1]} ended with code {done['code']}: {sentence}")


def runtime_library():
    """Returns the arguments that select the ONNX Runtime of this interpreter."""
    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    found = sorted(folder.glob("libonnxruntime.so.1.*"))
    return ["--ort-lib", found[0]] if found else []


def convert_and_compare(rgby, path, work):
    """Returns the relative difference of features, and time and memory of `rgby convert`."""
    checkpoint, exported = work / "checkpoint", work / "exported.onnx"
    cost = run_rgby([rgby, "convert", "--onnx", path, "--out", checkpoint, "--json"], path)
    run_rgby([rgby, "export", "--from", checkpoint, "--out", exported,
              "--engine", "onnxruntime", *runtime_library()], path)
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    side = json.loads(metadata["rgby"])["preprocess"]["size"]
    rgb = common.image_batch((2, 3, side, side))
    # Noise looks the same everywhere, so the other image becomes brighter to the right.
    rgb[1].sort(axis=-1)
    yellow = numpy.random.default_rng(SEED).uniform(-1, 1, (2, 1, side, side))
    wanted = common.pooled_features(path, rgb)
    stained = numpy.concatenate([rgb, yellow.astype(numpy.float32)], 1)
    found = common.pooled_features(exported, stained)
    return common.relative_difference(found, wanted), cost


def cell(row, model, opset, args):
    """Returns the text of a cell, whether it passed, and the cost of convert if it succeeded."""
    work = args.work / "row"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    path = work / "original.onnx"
    try:
        if opset > row.last_opset:
            raise NotMade(f"tf2onnx ends at opset {row.last_opset}")
        proto = row.save(model, opset=opset)
        onnx.save(proto, path)
        del proto
        difference, cost = convert_and_compare(args.rgby, path, work)
        cost["file"] = path.stat().st_size
        return f"{difference:.1e}", difference <= common.TOLERANCE, cost
    except NotMade as reason:
        return f"not made: {reason}", True, None
    except Refused as reason:
        return f"refused: {reason}", True, None
    except Exception as error:  # One failed cell must not hide the others.
        return f"FAILED: {type(error).__name__}: {first_sentence(str(error))}", False, None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def costs(taken):
    """Returns the largest time and memory of a row's conversions, with the size of the file."""
    if not taken:
        return ["", "", "", ""]
    seconds = max(cost["seconds"] for cost in taken)
    worst = max(taken, key=lambda cost: cost["bytes"] / cost["file"])
    return [f"{seconds:.1f} s", f"{worst['bytes'] / 2**20:.0f} MiB",
            f"{worst['file'] / 2**20:.0f} MiB", f"{worst['bytes'] / worst['file']:.1f}"]


def run_row(row, args):
    """Returns the cells of a row, and whether all passed."""
    if importlib.util.find_spec(row.library) is None:
        return [f"not made: no {row.library}"] * len(args.opsets) + costs([]), True
    model = row.make()
    cells, right, taken = [], True, []
    for opset in args.opsets:
        text, fine, cost = cell(row, model, opset, args)
        print(f"{row.title}, opset {opset}: {text}", file=sys.stderr, flush=True)
        cells.append(text)
        right = right and fine
        taken += [cost] if cost else []
        gc.collect()
    return cells + costs(taken), right


class Table:
    """A Markdown table. The reason of a cell without a number becomes a note below the table."""

    def __init__(self, heads):
        self.lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        self.notes = []

    def add(self, cells):
        """Adds a row."""
        self.lines.append("| " + " | ".join(map(self.numbered, cells)) + " |")

    def numbered(self, text):
        """Returns the text, or its kind and the number of its note."""
        kind, colon, reason = text.partition(": ")
        if not colon:
            return text
        if reason not in self.notes:
            self.notes.append(reason)
        return f"{kind} ({self.notes.index(reason) + 1})"

    def text(self):
        """Returns the table and its notes."""
        notes = [f"{number}. {note}" for number, note in enumerate(self.notes, 1)]
        return "\n".join([*self.lines, "", *notes]) + "\n"


def parse_args():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rgby", type=pathlib.Path, required=True, metavar="PATH",
                        help="rgby, a release build")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("matrix-work"),
                        metavar="DIR", help="scratch folder, 1 GB (default ./matrix-work)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="Markdown file")
    parser.add_argument("--only", default="", metavar="TEXT",
                        help="only rows whose title contains TEXT")
    parser.add_argument("--opsets", default=OPSETS, metavar="N,N",
                        type=lambda text: tuple(int(part) for part in text.split(",")),
                        help="only these opsets")
    args = parser.parse_args()
    if not os.access(args.rgby, os.X_OK):
        parser.error(f"--rgby {args.rgby}: no such program; build it: cargo build --release")
    args.rgby = args.rgby.resolve()
    return args


def main():
    """Prints the table and exits."""
    args = parse_args()
    heads = ["network, exporter, BatchNorm", *(f"opset {opset}" for opset in args.opsets),
             "convert, at most", "peak memory", "file", "memory / file"]
    # The exporters log every attempt to convert to an older opset.
    logging.disable(logging.ERROR)
    table = Table(heads)
    all_right = True
    for row in rows():
        if args.only not in row.title:
            continue
        cells, right = run_row(row, args)
        all_right = all_right and right
        table.add([row.title, *cells])
        if args.out:
            args.out.write_text(table.text())
    print(table.text(), end="")
    sys.exit(0 if all_right else 1)


if __name__ == "__main__":
    main()
