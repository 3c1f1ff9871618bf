"""What the parts of gpu_proof.py share: programs, folders, configs and images."""

import json
import os
import pathlib
import site
import struct
import subprocess
import sys
import zlib

# Side of the images and classes of the comparison with PyTorch.
SIDE, CLASSES = 64, 28


class Skipped(Exception):
    """This machine or this build does not support the part."""


class Failed(Exception):
    """The part ran and did not succeed."""


def library_folders():
    """Returns environment variables with which rgby finds the libraries of this Python."""
    places = [pathlib.Path(place) for place in [*site.getsitepackages(), *sys.path] if place]
    found = [place / "torch/lib" for place in places]
    found += [lib for place in places for lib in sorted(place.glob("nvidia/*/lib"))]
    folders = [str(folder) for folder in found if folder.is_dir()]
    before = os.environ.get("LD_LIBRARY_PATH")
    variables = {"LD_LIBRARY_PATH": ":".join(dict.fromkeys([*folders, *([before] if before else [])]))}
    runtimes = [lib for place in places for lib in place.glob("onnxruntime/capi/libonnxruntime.so.1*")]
    if runtimes and "ORT_DYLIB_PATH" not in os.environ:
        variables["ORT_DYLIB_PATH"] = str(runtimes[0])
    return variables


def devices(programs):
    """Returns the program of each training device, and the errors of programs that do not run."""
    found, errors = {}, {}
    for program in programs:
        try:
            done = subprocess.run([program, "devices", "--json"], capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise OSError(last_words(done.stderr))
            listed = json.loads(done.stdout)["training"]["devices"]
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            errors[program] = str(error)
            continue
        for device in listed:
            if device["error"] is None:
                found.setdefault(device["device"], program)
    return found, errors


def last_words(text):
    """Returns the error message at the end of an output."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return " ".join((errors or lines or ["no output"])[-1].split())


def program_of(context, device):
    """Returns the program for a device, or the first that runs if it does not matter."""
    if device in context["devices"]:
        return context["devices"][device]
    if not context["devices"]:
        raise Skipped("no program rgby runs here")
    return next(iter(context["devices"].values()))


def rgby(context, device, *words):
    """Runs rgby for a training device and returns its output."""
    command = [program_of(context, device), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    print("$", *command, "\n", done.stdout, done.stderr, sep=" ", flush=True)
    if done.returncode:
        message = last_words(done.stderr)
        # A config that this build does not accept is not a failure.
        refused = "train.precision" in message or "train.deterministic" in message
        raise (Skipped if refused else Failed)(message)
    return done.stdout


def work(context):
    folder = pathlib.Path(context["out"]) / "work"
    folder.mkdir(exist_ok=True)
    return folder


def small(context):
    return context["mode"] == "cpu"


def torch_here(context):
    """Returns PyTorch and the device of its part of a comparison."""
    try:
        import torch
    except ImportError as error:
        raise Skipped(f"this Python cannot import torch: {error}") from error
    if small(context):
        return torch, torch.device("cpu")
    if not torch.cuda.is_available():
        raise Skipped("PyTorch has no CUDA device here")
    return torch, torch.device("cuda")


def png(path, plane):
    """Writes an 8-bit gray PNG file."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = plane.shape
    rows = b"".join(b"\0" + plane[row].tobytes() for row in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)


def samples(context):
    """Returns the batch of the comparison: images as bytes [N, 4, S, S] and targets [N, K]."""
    import numpy

    generator = numpy.random.default_rng(7)
    count, patch = (8 if small(context) else 16), 16
    gray = generator.integers(0, 256, (count, 4, SIDE // patch, SIDE // patch), dtype=numpy.uint8)
    images = gray.repeat(patch, 2).repeat(patch, 3)
    targets = (generator.random((count, CLASSES)) < 0.15).astype(numpy.float32)
    targets[:, 0] = 1
    return images, targets


def config(context, name, **changes):
    """Writes a config and returns its path."""
    values = {"arch": "resnet50", "size": SIDE, "epochs": 1, "steps": 1, "batch": 8, "lr": 0.01}
    values.update(changes)
    path = work(context) / f"{name}.toml"
    path.write_text(
        f'[model]\narch = "{values["arch"]}"\ninput_size = {values["size"]}\n'
        f'[train]\nepochs = {values["epochs"]}\nsteps_per_epoch = {values["steps"]}\n'
        f'batch_size = {values["batch"]}\n[optimizer]\nname = "adadelta"\nlr = {values["lr"]}\n'
        '[data]\nsplit = "none"\n'
    )
    return path


def started(context, side=SIDE):
    """Returns the file of initial weights."""
    path = work(context) / f"start{side}.onnx"
    if not path.is_file():
        raise Skipped("the part `data` did not write the initial weights")
    return path
