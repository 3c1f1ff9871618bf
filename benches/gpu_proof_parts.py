"""The parts of gpu_proof.py. Each runs in a process of its own and reports rows."""

import csv
import hashlib
import json
import os
import pathlib
import re
import site
import struct
import subprocess
import sys
import time
import zlib

# Images and epochs of the comparison with PyTorch.
SIDE, CLASSES, EPOCHS = 64, 28, 5
LEARNING_RATE = 0.01
# The limits of the project's own comparison (tests/integration/pytorch.rs).
LOSS_LIMIT, STATISTICS_LIMIT = 1e-2, 1e-3
CHANNELS = ("red", "green", "blue", "yellow")


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


def steps_per_epoch(context):
    return 2 if small(context) else 10


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
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


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
    values = {"arch": "resnet50", "size": SIDE, "epochs": 1, "steps": 1, "batch": 8, "lr": LEARNING_RATE}
    values.update(changes)
    path = work(context) / f"{name}.toml"
    path.write_text(
        f'[model]\narch = "{values["arch"]}"\ninput_size = {values["size"]}\n'
        f'[train]\nepochs = {values["epochs"]}\nsteps_per_epoch = {values["steps"]}\n'
        f'batch_size = {values["batch"]}\n[optimizer]\nname = "adadelta"\nlr = {values["lr"]}\n'
        '[data]\nsplit = "none"\n'
    )
    return path


def data(context, row):
    """Draws images and writes the files of initial weights for all later parts."""
    folder = work(context)
    images, targets = samples(context)
    (folder / "batch").mkdir(exist_ok=True)
    rows = ["Id,Target"]
    for index, (sample, present) in enumerate(zip(images, targets)):
        for channel, plane in zip(CHANNELS, sample):
            png(folder / "batch" / f"s{index:02}_{channel}.png", plane)
        rows.append(f"s{index:02},{' '.join(str(at) for at in range(CLASSES) if present[at])}")
    (folder / "batch.csv").write_text("\n".join(rows) + "\n")
    count, side = (24, 128) if small(context) else (512, 512)
    start = time.monotonic()
    rgby(context, None, "-q", "synth", "--out", folder / "drawn", "--count", count, "--size", side)
    print(f"drew {count} samples in {time.monotonic() - start:.1f} s")
    sides = [SIDE] if small(context) else [SIDE, 224]
    for side in sides:
        # A step with almost no learning rate: the weights are random, the statistics are not 0 and 1.
        path = config(context, f"start{side}", size=side, lr=1e-12, batch=len(images))
        run = folder / f"start{side}"
        words = ["--images", folder / "batch", "--labels", folder / "batch.csv"]
        rgby(context, "cpu", "-q", "train", "--config", path, *words, "--out", run)
        rgby(context, "cpu", "-q", "export", "--from", run / "checkpoints/last", "--out", f"{run}.onnx")


def started(context, side=SIDE):
    """Returns the file of initial weights."""
    path = work(context) / f"start{side}.onnx"
    if not path.is_file():
        raise Skipped("the part `data` did not write the initial weights")
    return path


def calm(name, shape):
    """Returns initial values of a tensor of ResNet50 with which training is not chaotic.

    From usual random weights, inputs that are off by 1e-6 change a loss by a percent after ten
    steps. The shares of the residual branches decide; these are as in tests/golden/resnet50_steps.py.
    """
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def uniform(low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    if name.startswith("head."):
        return uniform(-0.02, 0.02)
    if name.endswith("bn3.weight"):
        return uniform(0.1, 0.3)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return uniform(0.5, 1.5)
    if name.startswith("backbone.") and len(shape) == 1:
        return uniform(-0.2, 0.2)
    if name.startswith("backbone.") and len(shape) == 4:
        bound = (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
        return uniform(-bound, bound)
    return None


def calm_start(context):
    """Returns the file of initial weights of the comparison."""
    import torch_networks

    path = work(context) / "calm.onnx"
    if not path.is_file():
        torch_networks.rewrite_export(started(context), path, calm)
    return path


def pytorch_losses(context, noise=0.0, tf32=False):
    """Trains in PyTorch. Returns the mean loss of each epoch and the running statistics."""
    torch, place = torch_here(context)
    import torch_networks

    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    model = torch_networks.load_export(calm_start(context), torch_networks.network("resnet50")).to(place)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=LEARNING_RATE)
    images, targets = (torch.from_numpy(values).to(place) for values in samples(context))
    images = (images.float() / 255 - 0.5) / 0.5 * (1 + noise)
    means = []
    for _ in range(EPOCHS):
        losses = []
        for _ in range(steps_per_epoch(context)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    statistics = {name: value.cpu() for name, value in model.state_dict().items() if "running" in name}
    return means, statistics


def differences(expected, found):
    """Returns the largest relative difference of a loss and of a tensor of running statistics."""
    losses = max(abs(a - b) / abs(a) for a, b in zip(expected[0], found[0], strict=True))
    statistics = max(
        ((value - found[1][name]).abs().max() / value.abs().max()).item()
        for name, value in expected[1].items()
    )
    return losses, statistics


def equality(context, row, device):
    """Trains 50 steps with rgby and with PyTorch, from the same weights on the same batch."""
    torch_here(context)
    import torch_networks

    folder = work(context)
    images, _ = samples(context)
    steps = steps_per_epoch(context)
    path = config(context, "equality", epochs=EPOCHS, steps=steps, batch=len(images))
    run = folder / f"equality-{device.replace(':', '_')}"
    words = ["--config", path, "--images", folder / "batch", "--labels", folder / "batch.csv"]
    start = calm_start(context)
    words += ["--from", start, "--device", device, "--out", run]
    if device.startswith("torch"):
        words += ["--set", "train.precision=fp32"]
    rgby(context, device, "-q", "train", *words)
    rgby(context, device, "-q", "export", "--from", run / "checkpoints/last", "--out", f"{run}.onnx")
    with (run / "metrics.csv").open() as file:
        losses = [float(line["train_loss"]) for line in csv.DictReader(file)]
    model = torch_networks.network("resnet50")
    state = torch_networks.export_state(f"{run}.onnx", model)
    found = losses, {name: value for name, value in state.items() if "running" in name}
    expected = pytorch_losses(context)
    loss, statistics = differences(expected, found)
    before = torch_networks.export_state(start, model)
    moved = differences(expected, (expected[0], before))[1]
    controls = {"inputs off by 1e-6": differences(expected, pytorch_losses(context, noise=1e-6))}
    if not small(context):
        controls["TensorFloat-32"] = differences(expected, pytorch_losses(context, tf32=True))
    shown = "; ".join(f"PyTorch with {name}: {a:.1e}, {b:.1e}" for name, (a, b) in controls.items())
    verdict = loss <= LOSS_LIMIT and statistics <= STATISTICS_LIMIT
    row(
        what=f"{EPOCHS * steps} steps of ResNet50 at {SIDE}, batch {len(images)}, beside PyTorch in float32",
        device=device,
        agrees=verdict,
        loss=loss,
        statistics=statistics,
        controls=controls,
        losses=losses,
        expected=expected[0],
        text=f"{'agrees' if verdict else 'DIFFERS'}: losses within {loss:.1e}, running statistics "
        f"{statistics:.1e}, which the training changed by {moved:.1e} ({shown})",
    )
    if moved < 0.01:
        raise Failed(f"the training changed the statistics by {moved:.1e} only")
    if not verdict:
        raise Failed(f"losses differ by {loss:.1e}, running statistics by {statistics:.1e}")


def pytorch_step(context, row, precision, arch, size, batch):
    """Measures training steps of PyTorch on one reused batch."""
    torch, place = torch_here(context)
    import torch_networks

    cuda = place.type == "cuda"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.benchmark = True
    model = torch_networks.network(arch).to(place)
    optimizer = torch.optim.Adadelta(model.parameters())
    images = torch.randn(batch, 4, size, size, device=place)
    targets = (torch.rand(batch, CLASSES, device=place) < 0.1).float()
    seconds = []
    warm, steps = (10, 40) if cuda else (1, 3)
    for _ in range(warm + steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)
        loss.backward()
        optimizer.step()
        # Waits for the device, as rgby's bare step does.
        loss.item()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[warm:])[steps // 2]
    row(
        what="step",
        program="PyTorch",
        device=place.type,
        case=f"{arch} at {size}, batch {batch}",
        precision=precision,
        images_per_s=batch / median,
    )


def rgby_step(context, row, device, precision, arch, size, batch):
    """Measures training steps of rgby on one reused batch, and its whole loop."""
    # Burn's own kernels may take a second for each step.
    steps = 3 if small(context) else (40 if device.startswith("torch") else 6)
    words = ["bench", "--train", "--arch", arch, "--input-size", size, "--batch-size", batch]
    words += ["--steps", steps, "--json", "--device", device]
    if precision != "default":
        words += ["--set", f"train.precision={precision}"]
    found = json.loads(rgby(context, device, "-q", *words))
    row(
        what="step",
        program="rgby",
        device=device,
        case=f"{arch} at {size}, batch {batch}",
        precision=precision,
        images_per_s=found["step_images_per_s"],
        details=found,
    )
    row(
        what=f"whole loop from a pixel cache, {arch} at {size}, batch {batch}, {precision}",
        device=device,
        text=f"{found['loop_images_per_s']:.1f} images/s, {found['loop_to_step']:.2f} of the bare step",
    )


def hashes(run):
    """Returns a hash of each file that an interruption must not change."""
    paths = [run / "checkpoints/last" / name for name in ("weights.bpk", "optimizer.bpk")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*paths, run / "metrics.csv"]}


def resume(context, row, device):
    """Compares a run that was killed and resumed with an uninterrupted run."""
    folder = work(context)
    steps, every = (6, 2) if small(context) else (40, 10)
    path = config(context, "resume", epochs=2, steps=steps, batch=4)
    name = device.replace(":", "_")
    words = ["-q", "train", "--config", path, "--images", folder / "batch", "--labels", folder / "batch.csv"]
    words += ["--from", started(context), "--device", device, "--checkpoint-every", f"{every} steps"]
    how = ""
    whole, parts = folder / f"whole-{name}", folder / f"parts-{name}"
    if device.startswith("torch"):
        try:
            chosen = ["--set", "train.deterministic=true"]
            rgby(context, device, *words, *chosen, "--out", whole)
            words, how = words + chosen, ", train.deterministic = true"
        except Skipped:
            how = ", this build has no train.deterministic"
    if not whole.exists():
        rgby(context, device, *words, "--out", whole)
    command = [program_of(context, device), *map(str, words), "--out", str(parts)]
    process = subprocess.Popen(command)
    done = kill_after(process, parts / "checkpoints/last/checkpoint.json", steps, every + 1)
    rgby(context, device, *words, "--out", parts, "--resume")
    expected, found = hashes(whole), hashes(parts)
    differ = [file for file in expected if expected[file] != found[file]]
    verdict = f"differs in {', '.join(differ)}" if differ else "bit-identical weights, optimizer state and metrics"
    row(
        what=f"a killed and resumed run beside an uninterrupted one{how}",
        device=device,
        killed_at_step=done,
        identical=not differ,
        text=f"{verdict} (killed after step {done} of {2 * steps})",
    )
    if differ:
        raise Failed(verdict)


def kill_after(process, checkpoint, steps_per_epoch, after):
    """Kills a run after a checkpoint of at least that step; returns the step."""
    done = 0
    while process.poll() is None and done < after:
        time.sleep(0.002)
        try:
            progress = json.loads(checkpoint.read_text())["progress"]
        except (OSError, ValueError):
            # It is being replaced.
            continue
        done = progress["epoch"] * steps_per_epoch + progress["step_in_epoch"]
    if process.poll() is not None:
        raise Failed("the run ended before it could be killed")
    process.kill()
    process.wait()
    return done


def workers():
    return max(2, len(os.sched_getaffinity(0)))


def end_to_end(context, row, device):
    """Trains from PNG files."""
    folder = work(context)
    size, batch, steps = (64, 4, 3) if small(context) else (224, 64, 24 if device.startswith("torch") else 4)
    name = device.replace(":", "_")
    path = config(context, f"end-{name}", size=size, epochs=2, steps=steps, batch=batch)
    run = folder / f"end-{name}"
    words = ["--config", path, "--images", folder / "drawn/images", "--labels", folder / "drawn/labels.csv"]
    words += ["--set", f"data.workers={workers()}", "--set", "train.validation_steps=1"]
    rgby(context, device, "-q", "train", *words, "--device", device, "--out", run)
    with (run / "timing.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    speed, waited = float(last["images_per_s"]), 100 * float(last["waited"]) / float(last["seconds"])
    row(
        what=f"training from PNG files, ResNet50 at {size}, batch {batch}, second epoch",
        device=device,
        images_per_s=speed,
        text=f"{speed:.1f} images/s, {waited:.0f} % of the time waiting for images, {workers()} threads",
    )


def features(context, row, device):
    """Computes the features of a frozen backbone with ONNX Runtime, and trains the head."""
    folder = work(context)
    if "ORT_DYLIB_PATH" not in os.environ:
        raise Skipped("this Python has no onnxruntime")
    # On a GPU, eight symmetries of each sample: a few hundred samples take too little time.
    size, batch, epochs = (64, 4, 3) if small(context) else (224, 64, 8)
    name = device.replace(":", "_")
    count = sum(1 for _ in (folder / "drawn/labels.csv").open()) - 1
    steps = -(-count // batch)
    path = config(context, f"features-{name}", size=size, epochs=epochs, steps=steps, batch=batch)
    words = ["--config", path, "--images", folder / "drawn/images", "--labels", folder / "drawn/labels.csv"]
    words += ["--set", f"train.stages=[{{epochs={epochs},freeze=['backbone']}}]"]
    words += ["--set", f"data.augment.dihedral={str(not small(context)).lower()}"]
    words += ["--feature-device", "cpu" if small(context) else "cuda", "--device", device]
    for source, cache in [("PNG files", []), ("a pixel cache", ["--cache", folder / "pixels.cache"])]:
        run = folder / f"features-{name}-{len(cache)}"
        rgby(context, device, "train", *words, *cache, "--out", run)
        log = (run / "log.txt").read_text()
        pattern = r"computed the features in ([\d.]+) s: ([\d.]+) images/s, ([\d.]+) % of the time inside (.*)"
        found = re.search(pattern, log)
        if not found:
            raise Failed("the log does not name the time of the features")
        seconds, speed, share = map(float, found.groups()[:3])
        row(
            what=f"features of a frozen ResNet50 at {size} from {source}",
            device=device,
            images_per_s=speed,
            share=share,
            text=f"{speed:.1f} images/s in {seconds:.1f} s, {share:.1f} % of the time inside {found[4]}",
        )


def score(context, row, provider):
    """Measures scoring from PNG files beside the bare session."""
    if "ORT_DYLIB_PATH" not in os.environ:
        raise Skipped("this Python has no onnxruntime")
    beside = pathlib.Path(os.environ["ORT_DYLIB_PATH"]).parent
    if provider != "cpu" and not (beside / f"libonnxruntime_providers_{provider}.so").is_file():
        raise Skipped(f"ONNX Runtime in {beside} has no {provider} provider; install onnxruntime-gpu")
    side, batch = (SIDE, 4) if small(context) else (224, 64)
    words = ["bench", "--model", started(context, side), "--device", provider, "--engine", "onnxruntime"]
    words += ["--images", work(context) / "drawn/images", "--batch-sizes", batch, "--rounds", 1]
    words += ["--seconds", 0.5 if small(context) else 3, "--json"]
    found = json.loads(rgby(context, None, "-q", *words))["models"][0]
    best = found["batches"][0]
    bare, whole = best["session"]["images_per_s"], best["end_to_end"]["images_per_s"]
    row(
        what=f"scoring PNG files, ResNet50 at {side}, batch {batch}, float32",
        device=provider,
        details=found,
        text=f"{whole:.1f} images/s, bare session {bare:.1f}, preparation {found['prepare']['images_per_s']:.1f}",
    )


PARTS = {
    "data": data,
    "equality": equality,
    "pytorch_step": pytorch_step,
    "rgby_step": rgby_step,
    "resume": resume,
    "end_to_end": end_to_end,
    "features": features,
    "score": score,
}
