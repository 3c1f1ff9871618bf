#!/usr/bin/env python3
"""Writes the learning rates of PyTorch's schedulers at every step of a run: schedules.json.

The run has 4 epochs of 10 steps and starts with a learning rate of 0.5. Each case contains its
settings and the 40 rates of the steps. Warm-up is LambdaLR, or LambdaLR before CosineAnnealingLR in
a SequentialLR. StepLR is stepped once per epoch. Nothing is random.

    pip install torch && python schedules.py
"""

import json
import pathlib
import platform
import warnings

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, SequentialLR, StepLR

LR, EPOCHS, STEPS = 0.5, 4, 10
HERE = pathlib.Path(__file__).resolve().parent


def warm_up(steps):
    """Returns the factor of a step, counted from 0."""
    return lambda step: min(1.0, (step + 1) / max(steps, 1))


def rates(make, every):
    """Returns the rate at each step, with a scheduler that is stepped after every `every` steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    found = []
    for step in range(EPOCHS * STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return found


def sequence(optimizer, warmup, min_lr):
    """Returns a scheduler with warm-up, then a cosine over the remaining steps."""
    cosine = CosineAnnealingLR(optimizer, EPOCHS * STEPS - warmup, eta_min=min_lr)
    if warmup == 0:
        return cosine
    return SequentialLR(optimizer, [LambdaLR(optimizer, warm_up(warmup)), cosine], [warmup])


def cases():
    """Yields settings and rates of each case."""
    for warmup in (0, 7):
        yield {"schedule": "constant", "warmup_steps": warmup}, rates(
            lambda optimizer: LambdaLR(optimizer, warm_up(warmup)), 1
        )
    for epochs, factor in ((1, 0.5), (2, 0.1), (3, 0.1)):
        yield {"schedule": "step", "step_epochs": epochs, "step_factor": factor}, rates(
            lambda optimizer: StepLR(optimizer, epochs, factor), STEPS
        )
    for warmup, min_lr in ((0, 0.0), (0, 0.01), (7, 0.01), (40, 0.01)):
        yield {"schedule": "cosine", "warmup_steps": warmup, "min_lr": min_lr}, rates(
            lambda optimizer: sequence(optimizer, warmup, min_lr)
            if warmup < EPOCHS * STEPS
            else LambdaLR(optimizer, warm_up(warmup)),
            1,
        )


def main():
    """Writes the golden file."""
    # SequentialLR steps its schedulers, which triggers their warnings.
    warnings.simplefilter("ignore")
    about = {
        "generator": "tests/golden/schedules.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
        },
        "lr": LR,
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
    }
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    rows = [json.dumps(settings | {"lr": found}) for settings, found in cases()]
    fields.append('"cases": [\n' + ",\n".join(rows) + "\n]")
    (HERE / "schedules.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")


if __name__ == "__main__":
    main()
