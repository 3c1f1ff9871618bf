#!/usr/bin/env python3
"""Compares the training recipe of configs/best.toml with that of the reference experiments.

Both train the same network from the same random weights on the same number of samples, with three
seeds. The two configs differ in optimizer, schedule, loss, augmentation, split, weight averaging
and normalization. The result is the macro-F1 on the same held-out samples: at threshold 0.5, at the
reference's single threshold, and with a threshold per class tuned on the run's validation samples.

The warm-up and the weight averaging of best.toml are meant for 31,000 steps. The script scales both
down to the length of the run.

    cargo build --release && pip install numpy && python benches/recipes.py --out /tmp/recipes
"""

import argparse
import csv
import pathlib
import subprocess
import tomllib

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Steps of best.toml on the training set of the competition.
FULL_STEPS = 40 * 777
CLASSES = 28


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--rgby", type=pathlib.Path, default=ROOT / "target/release/rgby")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--pooling", default="average")
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--train", type=int, default=1024, help="training samples")
    parser.add_argument("--test", type=int, default=512, help="held-out samples")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50, help="steps per epoch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", default="0,2,5,7,14,16,21,23,25")
    return parser.parse_args()


def rgby(args, *words):
    """Runs rgby."""
    subprocess.run([args.rgby, *map(str, words)], check=True)


def recipes(args):
    """Returns the config file and the overrides of each recipe."""
    total = args.epochs * args.steps
    share = total / FULL_STEPS
    with open(ROOT / "configs/best.toml", "rb") as file:
        best = tomllib.load(file)
    return {
        "reference": ("resnet50-rgby.toml", ["data.split=third-fold"]),
        "best": (
            "best.toml",
            [
                "data.split=stratified:1/3",
                f"optimizer.warmup_steps={max(1, round(best['optimizer']['warmup_steps'] * share))}",
                f"train.ema={1 - min(0.1, (1 - best['train']['ema']) / share)}",
            ],
        ),
    }


def sets(args, seed):
    """Returns the overrides that both recipes share."""
    values = {
        "model.arch": args.arch,
        "model.input_size": args.input_size,
        "model.pooling": args.pooling,
        "model.dropout": 0,
        "train.epochs": args.epochs,
        "train.steps_per_epoch": args.steps,
        "train.batch_size": args.batch,
        "train.seed": seed,
    }
    return [f"{key}={value}" for key, value in values.items()]


def f1_of_classes(probabilities, targets, thresholds):
    """Returns the F1 of each class."""
    found = probabilities >= thresholds
    hits = (found & targets).sum(axis=0)
    return 2 * hits / numpy.maximum(found.sum(axis=0) + targets.sum(axis=0), 1)


def tuned(probabilities, targets):
    """Returns the threshold with the best F1 for each class."""
    grid = numpy.linspace(0.02, 0.98, 97)
    scores = [f1_of_classes(probabilities, targets, value) for value in grid]
    return grid[numpy.argmax(scores, axis=0)]


def read_targets(path):
    """Reads the classes of each id."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    targets = {row["Id"]: numpy.zeros(CLASSES, bool) for row in rows}
    for row in rows:
        targets[row["Id"]][[int(word) for word in row["Target"].split()]] = True
    return targets


def scores(args, model, data, ids=None):
    """Scores a data set. Returns the probabilities and the targets of its samples."""
    out = model.with_suffix(f".{data.name}.csv")
    listed = ["--ids", ids] if ids else []
    images = ["--images", data / "images", *listed]
    rgby(args, "-q", "score", "--model", model, *images, "--out", out, "--scores", f"{out}.p")
    with open(f"{out}.p", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    targets = read_targets(data / "labels.csv")
    values = numpy.array([[float(value) for value in row[1:]] for row in rows])
    return values, numpy.array([targets[row[0]] for row in rows])


def run(args, name, seed):
    """Trains a recipe and evaluates it on the held-out samples."""
    config, changes = recipes(args)[name]
    out = args.out / f"{name}-{seed}"
    train, test = args.out / "train", args.out / "test"
    changes = [word for set in sets(args, seed) + changes for word in ("--set", set)]
    data = ["--images", train / "images", "--labels", train / "labels.csv"]
    rgby(args, "train", "--config", ROOT / "configs" / config, *changes, *data, "--out", out)
    model = out / "model.onnx"
    rgby(args, "-q", "export", "--from", out, "--out", model)
    with open(out / "split.csv", encoding="utf-8") as file:
        held_out = [row for row in csv.reader(file) if row[1] == "valid"]
    (out / "valid.csv").write_text("Id\n" + "".join(f"{row[0]}\n" for row in held_out))
    thresholds = tuned(*scores(args, model, train, out / "valid.csv"))
    probabilities, targets = scores(args, model, test)
    classes = [int(word) for word in args.classes.split(",")]

    def macro(value):
        return f1_of_classes(probabilities, targets, value)[classes].mean()

    return {"at 0.5": macro(0.5), "at 0.05": macro(0.05), "tuned": macro(thresholds)}


def main():
    """Prints one row per run, then the means."""
    args = arguments()
    for name, count, seed in (("train", args.train, 1), ("test", args.test, 2)):
        size = ["--size", 2 * args.input_size, "--classes", args.classes]
        folder = args.out / name
        if not folder.exists():
            rgby(args, "-q", "synth", "--out", folder, "--count", count, "--seed", seed, *size)
    rows = []
    for seed in range(args.seeds):
        for name in recipes(args):
            result = run(args, name, seed)
            rows.append((name, result))
            figures = ", ".join(f"{key} {value:.3f}" for key, value in result.items())
            print(f"{name}, seed {seed}: macro-F1 {figures}", flush=True)
    for name in recipes(args):
        for key in rows[0][1]:
            values = [result[key] for other, result in rows if other == name]
            print(f"{name} {key}: mean {numpy.mean(values):.3f}, minimum {min(values):.3f}")


if __name__ == "__main__":
    main()
