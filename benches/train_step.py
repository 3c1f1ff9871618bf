#!/usr/bin/env python3
"""Training steps on the CPU: rgby beside PyTorch, in turns on the same machine.

    benches/train_step.py [--rgby target/release/rgby] [--threads 2] [--rounds 3] [--steps 4]

Builds nothing. Needs torch, torchvision and timm, and an rgby that was built with --release. Other
work on the machine slows whoever is running just then, so the two take turns, and of each the
fastest round counts.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

CASES = [("resnet50", 224, 8), ("inception-resnet-v2", 139, 8)]
CHANNELS, CLASSES = 4, 28


def torch_model(arch):
    """The network of the same shape, in training mode with random weights."""
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


def torch_round(arch, size, batch, threads, steps):
    """Images a second and peak memory in MB. Called in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch_model(arch)
    optimizer = torch.optim.Adadelta(model.parameters())
    loss = torch.nn.BCEWithLogitsLoss()
    images = torch.randn(batch, CHANNELS, size, size)
    targets = (torch.rand(batch, CLASSES) < 0.1).float()
    best = float("inf")
    # The first step allocates and chooses kernels.
    for step in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(model(images), targets).backward()
        optimizer.step()
        if step > 0:
            best = min(best, time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_images_per_s": batch / best, "peak_rss_mb": memory}


def run(command, threads):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def compare(arguments, arch, size, batch):
    ours = [arguments.rgby, "bench", "--train", "--arch", arch, "--input-size", str(size)]
    ours += ["--batch-size", str(batch), "--json"]
    theirs = [sys.executable, __file__, "--threads", str(arguments.threads)]
    theirs += ["--steps", str(arguments.steps), "--torch", arch, str(size), str(batch)]
    rounds = {"rgby": [], "PyTorch": []}
    for _ in range(arguments.rounds):
        rounds["PyTorch"].append(run(theirs, arguments.threads))
        rounds["rgby"].append(run(ours, arguments.threads))
    print(f"{arch} at {size}, batch {batch}, {arguments.threads} threads")
    speeds = {}
    for name, results in rounds.items():
        speeds[name] = max(result["step_images_per_s"] for result in results)
        # PyTorch takes steps only; rgby goes on with a whole run, which has another peak.
        memory = max(result.get("step_peak_rss_mb", result["peak_rss_mb"]) for result in results)
        print(f"  {name:8} {speeds[name]:6.2f} images/s, peak {memory:5.0f} MB")
    print(f"  ratio    {speeds['rgby'] / speeds['PyTorch']:6.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rgby", default="target/release/rgby")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--torch", nargs=3, metavar=("ARCH", "SIZE", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        arch, size, batch = arguments.torch
        result = torch_round(arch, int(size), int(batch), arguments.threads, arguments.steps)
        print(json.dumps(result))
        return
    for case in CASES:
        compare(arguments, *case)


if __name__ == "__main__":
    main()
