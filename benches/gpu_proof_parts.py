"""The parts of gpu_proof.py. Each runs in a process of its own and reports rows."""

import csv
import json
import os
import pathlib
import re
import time

from gpu_proof_exactness import equality, resume
from gpu_proof_support import CLASSES, SIDE, Failed, Skipped, config, png, rgby, samples, small
from gpu_proof_support import started, torch_here, work

CHANNELS = ("red", "green", "blue", "yellow")


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
        text=f"{whole:.1f} images/s, bare session {bare:.1f}, preparation "
        f"{found['prepare']['images_per_s']:.1f}",
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
