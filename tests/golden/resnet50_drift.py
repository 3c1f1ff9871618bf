#!/usr/bin/env python3
"""Measures how far PyTorch's training of `resnet50_steps.py` drifts from itself: resnet50_drift.json.

`losses` has the loss before each of 20 steps in float32 on the CPU. Each list in `shifted` has the
losses of the same training with all inputs multiplied by 1 + shift, where the shifts are at most
1e-6, a few rounding errors of float32. Training on libtorch may differ from `losses` by no more than
the list that differs most.

    pip install torch torchvision numpy safetensors && python resnet50_drift.py
"""

import json
import platform

import torch

import resnet50_steps as golden

STEPS = 20
SHIFTS = [1e-6, -1e-6, 5e-7, -5e-7]


def losses(shift):
    """Returns the loss before each step."""
    model = golden.network(torch.float32)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=golden.LEARNING_RATE)
    found = []
    for step in range(STEPS):
        images, targets = golden.batch(step % golden.BATCHES, torch.float32)
        logits = model(images * (1 + shift))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def main():
    """Writes the golden file."""
    about = {
        "generator": "tests/golden/resnet50_drift.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
        },
        "seed": "none: all values are hashes",
        "losses": losses(0),
        "shifted": [losses(shift) for shift in SHIFTS],
    }
    path = golden.HERE / "resnet50_drift.json"
    path.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
