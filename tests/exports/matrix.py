"""Converts real-size exports of every known network and compares their features: a table.

For each network, exporter, BatchNorm kept or folded, and opset it makes the ONNX file with random
weights, runs `rgby convert` and `rgby export`, and compares pooled features: the exporter's file
in ONNX Runtime on an RGB batch, rgby's on the same and a noisy fourth plane. A cell is the largest
difference over the largest feature (at most 1e-4), or the number of the note that says why there is
none.

    python matrix.py --rgby ../../target/release/rgby --out matrix.md [--only "timm resnet50"]

Rows whose library is missing say so: run it once with PyTorch's interpreter and `--only torch`,
`--only timm`, once with TensorFlow's and `--only Keras`. Exit code 1 if a cell is too far off or
convert failed otherwise than by refusing. Seed 0. Tested with the versions of `small.py` and
`small_keras.py`, torchvision 0.29.2 and timm 1.0.31.
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
# What tf2onnx 1.17 writes at most.
TF2ONNX_LAST_OPSET = 18
# Runs a command from a small process: a child's peak memory counts that of the one it came from.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr,
                  "seconds": time.monotonic() - start, "bytes": usage.ru_maxrss * 1024}))
"""


class NotMade(Exception):
    """The exporter has no such file."""


class Refused(Exception):
    """rgby does not convert the file, and says why."""


@dataclasses.dataclass
class Row:
    """One network by one exporter; `make` loads the network, `save` exports it."""

    title: str
    library: str
    make: Callable
    save: Callable
    last_opset: int = OPSETS[-1]


def torch_model(network):
    """A torch network with random weights."""
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
    """The ONNX model, once it is seen to be folded or not as wanted."""
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
    """A network of keras.applications with random weights."""
    import keras

    keras.backend.clear_session()
    model = getattr(keras.applications, name)(weights=None)
    rng = numpy.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.beta.shape
            if layer.gamma is not None:
                # The sum over ResNet's blocks would grow with each of them otherwise.
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
    """Every row of the table."""
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
        # tf2onnx has no switch that keeps BatchNorm.
        yield Row(f"Keras {name}, tf2onnx, folded", "tensorflow",
                  lambda name=name: keras_model(name), common.keras_export, TF2ONNX_LAST_OPSET)


def launch(command):
    """Runs `command`: exit code, output, wall time, peak memory."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *map(str, command)],
        capture_output=True, text=True, check=True,
    )
    return json.loads(done.stdout)


def first_sentence(text):
    """The first sentence of a message, without the label before it, fit for a table's cell."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or ["no message"]
    errors = [line for line in lines if line.startswith("error:")]
    line = (errors or lines)[0].removeprefix("error:").strip()
    return line.split(". ")[0].rstrip(".").replace("|", "/")


def run_rgby(command, path):
    """Runs rgby on what came of `path`; `Refused` if convert says in its way that it will not."""
    done = launch(command)
    if done["code"] == 0:
        return done
    sentence = first_sentence(done["err"]).replace(f"{path}: ", "")
    if command[1] == "convert" and done["code"] == 2:
        raise Refused(sentence)
    raise RuntimeError(f"{command[1]} ended with code {done['code']}: {sentence}")


def runtime_library():
    """The arguments that name the ONNX Runtime of this interpreter."""
    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    found = sorted(folder.glob("libonnxruntime.so.1.*"))
    return ["--ort-lib", found[0]] if found else []


def convert_and_compare(rgby, path, work):
    """The relative difference of features, and what `rgby convert` took for it."""
    checkpoint, exported = work / "checkpoint", work / "exported.onnx"
    cost = run_rgby([rgby, "convert", "--onnx", path, "--out", checkpoint, "--json"], path)
    run_rgby([rgby, "export", "--from", checkpoint, "--out", exported,
              "--engine", "onnxruntime", *runtime_library()], path)
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    side = json.loads(metadata["rgby"])["preprocess"]["size"]
    rgb = common.image_batch((2, 3, side, side))
    # Noise looks the same everywhere; the other image grows brighter to the right.
    rgb[1].sort(axis=-1)
    yellow = numpy.random.default_rng(SEED).uniform(-1, 1, (2, 1, side, side))
    wanted = common.pooled_features(path, rgb)
    stained = numpy.concatenate([rgb, yellow.astype(numpy.float32)], 1)
    found = common.pooled_features(exported, stained)
    return common.relative_difference(found, wanted), cost


def cell(row, model, opset, args):
    """One cell: its text, whether it is all right, and what convert took, if it converted."""
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
    except Exception as error:  # One bad cell must not hide the others.
        return f"FAILED: {type(error).__name__}: {first_sentence(str(error))}", False, None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def costs(taken):
    """The largest time and memory of a row's conversions, beside the file's size."""
    if not taken:
        return ["", "", "", ""]
    seconds = max(cost["seconds"] for cost in taken)
    worst = max(taken, key=lambda cost: cost["bytes"] / cost["file"])
    return [f"{seconds:.1f} s", f"{worst['bytes'] / 2**20:.0f} MiB",
            f"{worst['file'] / 2**20:.0f} MiB", f"{worst['bytes'] / worst['file']:.1f}"]


def run_row(row, args):
    """The cells of a row, and whether all are right."""
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
    """The table in Markdown; a text that is no number becomes a note below it."""

    def __init__(self, heads):
        self.lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        self.notes = []

    def add(self, cells):
        """Adds a row."""
        self.lines.append("| " + " | ".join(map(self.numbered, cells)) + " |")

    def numbered(self, text):
        """The text, or its kind and its note's number."""
        kind, colon, reason = text.partition(": ")
        if not colon:
            return text
        if reason not in self.notes:
            self.notes.append(reason)
        return f"{kind} ({self.notes.index(reason) + 1})"

    def text(self):
        """All of it."""
        notes = [f"{number}. {note}" for number, note in enumerate(self.notes, 1)]
        return "\n".join([*self.lines, "", *notes]) + "\n"


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rgby", type=pathlib.Path, required=True, metavar="PATH",
                        help="the binary, a release build")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("matrix-work"),
                        metavar="DIR", help="scratch space, 1 GB (default ./matrix-work)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="the table, Markdown")
    parser.add_argument("--only", default="", metavar="TEXT",
                        help="only rows whose title has this in it")
    parser.add_argument("--opsets", default=OPSETS, metavar="N,N",
                        type=lambda text: tuple(int(part) for part in text.split(",")),
                        help="only these opsets")
    args = parser.parse_args()
    if not os.access(args.rgby, os.X_OK):
        parser.error(f"--rgby {args.rgby}: no such program; build it: cargo build --release")
    args.rgby = args.rgby.resolve()
    return args


def main():
    """Makes the table."""
    args = parse_args()
    heads = ["network, exporter, BatchNorm", *(f"opset {opset}" for opset in args.opsets),
             "convert, at most", "peak memory", "file", "memory / file"]
    # The exporters tell at length of what they try on the way to an older opset.
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
