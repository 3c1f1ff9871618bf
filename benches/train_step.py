#!/usr/bin/env python3
"""Compares training steps of rgby and PyTorch on the same machine.

    benches/train_step.py [--rgby target/release/rgby] [--device cuda] [--threads 2] [--rounds 3]
                          [--steps 4] [--case resnet50:224:32]...

--device also accepts torch:cpu and torch:cuda, for an rgby that was built with libtorch.

Builds nothing. Needs torch, torchvision and timm, and an rgby that was built with --release. The
programs take turns and the fastest round of each counts, because other work on the machine slows
the program that runs at that moment. On a GPU, PyTorch is measured with its defaults, where cuDNN
multiplies float32 in TensorFloat-32 (10-bit fractions), and in full float32. Memory is that of the
process on the host.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time

CASES = {
    "cpu": [("resnet50", 224, 8), ("inception-resnet-v2", 139, 8)],
    "cuda": [("resnet50", 224, 32), ("inception-resnet-v2", 139, 100)],
}
CASES["torch:cpu"] = CASES["cpu"]
CASES["torch:cuda"] = CASES["cuda"]
CHANNELS, CLASSES = 4, 28


def torch_model(arch):
    """Returns the same network in PyTorch, in training mode with random weights."""
    import torch

    if arch == "resnet50":
        import torchvision

        model = torchvision.models.resnet50(num_classes=CLASSES)
        model.conv1 = torch.nn.Conv2d(CHANNELS, 64, 7, 2, 3, bias=False)
    else:
        import timm

        name = arch.replace("-", "_")
        model = timm.create_model(name, num_classes=CLASSES, in_chans=CHANNELS)
    return model.train()


def torch_round(arch, size, batch, arguments):
    """Returns images per second and peak memory in MB. Runs in a separate process."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.float32:
        torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device)
    model = torch_model(arch).to(device)
    optimizer = torch.optim.Adadelta(model.parameters())
    loss = torch.nn.BCEWithLogitsLoss()
    images = torch.randn(batch, CHANNELS, size, size, device=device)
    targets = (torch.rand(batch, CLASSES, device=device) < 0.1).float()
    best = float("inf")
    # The first steps allocate and choose kernels.
    for step in range(arguments.steps + 3):
        start = time.perf_counter()
        optimizer.zero_grad()
        now = loss(model(images), targets)
        now.backward()
        optimizer.step()
        # Waits for the device, as rgby's bare step does.
        now.item()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step > 2:
            best = min(best, time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_images_per_s": batch / best, "peak_rss_mb": memory}


def run(command, threads):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def torch_device(device):
    """Returns PyTorch's name of a device of rgby."""
    return device.removeprefix("torch:")


def compare(arguments, arch, size, batch):
    ours = [arguments.rgby, "bench", "--train", "--arch", arch, "--input-size", str(size)]
    ours += ["--batch-size", str(batch), "--json", "--device", arguments.device]
    theirs = [sys.executable, __file__, "--threads", str(arguments.threads)]
    theirs += ["--device", torch_device(arguments.device), "--steps", str(arguments.steps)]
    theirs += ["--torch", arch, str(size), str(batch)]
    commands = {"PyTorch": theirs, "rgby": ours}
    if "cuda" in arguments.device:
        commands["PyTorch, float32"] = [*theirs, "--float32"]
    rounds = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            rounds[name].append(run(command, arguments.threads))
    print(f"{arch} at {size}, batch {batch}, {arguments.device}, {arguments.threads} threads")
    speeds = {}
    for name, results in rounds.items():
        speeds[name] = max(result["step_images_per_s"] for result in results)
    for name, results in rounds.items():
        # PyTorch runs only steps. rgby then runs a whole training loop, which has another peak.
        memory = max(result.get("step_peak_rss_mb", result["peak_rss_mb"]) for result in results)
        ratio = "" if name == "rgby" else f", rgby {speeds['rgby'] / speeds[name]:.2f} times"
        print(f"  {name:16} {speeds[name]:7.2f} images/s, peak {memory:5.0f} MB{ratio}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rgby", default="target/release/rgby")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--case", action="append", default=[], help="ARCH:SIZE:BATCH")
    parser.add_argument("--float32", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--torch", nargs=3, metavar=("ARCH", "SIZE", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        arch, size, batch = arguments.torch
        result = torch_round(arch, int(size), int(batch), arguments)
        print(json.dumps(result))
        return
    cases = [case.split(":") for case in arguments.case] or CASES[re.sub(r":\d+$", "", arguments.device)]
    for arch, size, batch in cases:
        compare(arguments, arch, int(size), int(batch))


if __name__ == "__main__":
    main()
