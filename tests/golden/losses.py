#!/usr/bin/env python3
"""Writes reference losses of PyTorch with their gradients: losses.json.

Logits [6, 5] come from a normal distribution, and include 0, ±30 and ±100. Targets are 0 or 1; no
sample has the last class. Each case contains its settings, the loss and its gradient with respect
to the logits, row by row. They are computed in float64 from logits that are exact in float32.

    bce      torch.nn.functional.binary_cross_entropy_with_logits
    focal    Lin et al. 2017 without alpha; for targets 0 or 1 the script checks that it equals
             torchvision's sigmoid_focal_loss
    soft-f1  1 - mean over the classes of 2 sum(p y) / (sum(p) + sum(y) + 1e-7)

    pip install torch torchvision numpy && python losses.py
"""

import json
import pathlib
import platform

import numpy
import torch
import torchvision
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

SEED = 2017
SHAPE = (6, 5)
HERE = pathlib.Path(__file__).resolve().parent
WEIGHTS = [1.0, 0.5, 12.0, 100.0, 3.0]


def problem():
    """Returns logits and targets [6, 5], float64 values exact in float32."""
    rng = numpy.random.default_rng(SEED)
    logits = rng.normal(0.0, 2.0, SHAPE).astype(numpy.float32).astype(numpy.float64)
    targets = (rng.random(SHAPE) < 0.4).astype(numpy.float64)
    targets[:, 4] = 0.0
    # Extreme logits with the right and the wrong sign, and zero.
    for row, (logit, target) in enumerate([(100, 1), (100, 0), (-100, 1), (-100, 0), (0, 1), (0, 0)]):
        logits[row, 1], targets[row, 1] = logit, target
    logits[0, 2], logits[1, 2], logits[2, 4] = 30, -30, -100
    return torch.tensor(logits), torch.tensor(targets)


def bce(logits, targets, weights):
    """Returns the mean binary cross-entropy."""
    return binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


def focal(logits, targets, weights, gamma):
    """Returns the mean focal loss, with the positive term multiplied by `weights`.

    Powers are computed from logarithms, because the gradient of 0**0.5 is not finite.
    """
    positive = torch.exp(gamma * logsigmoid(-logits)) * -logsigmoid(logits)
    negative = torch.exp(gamma * logsigmoid(logits)) * -logsigmoid(-logits)
    factor = 1.0 if weights is None else weights
    return (factor * targets * positive + (1 - targets) * negative).mean()


def soft_f1(logits, targets):
    """Returns one minus the macro F1 of probabilities."""
    probabilities = torch.sigmoid(logits)
    both = (probabilities * targets).sum(0)
    return 1 - (2 * both / (probabilities.sum(0) + targets.sum(0) + 1e-7)).mean()


def cases():
    """Yields the settings of each case."""
    for loss in ("bce", "focal"):
        for smoothing, weights in ((0.0, None), (0.0, WEIGHTS), (0.1, None), (0.1, WEIGHTS)):
            yield {"loss": loss, "label_smoothing": smoothing, "weights": weights}
    yield {"loss": "focal", "label_smoothing": 0.0, "weights": None, "focal_gamma": 0.5}
    yield {"loss": "focal", "label_smoothing": 0.0, "weights": None, "focal_gamma": 0.0}
    for smoothing in (0.0, 0.1):
        yield {"loss": "soft-f1", "label_smoothing": smoothing, "weights": None}


def run(case, logits, targets):
    """Returns the case with its loss and gradient."""
    logits = logits.clone().requires_grad_()
    smoothing = case["label_smoothing"]
    smooth = targets * (1 - smoothing) + smoothing / 2
    weights = None if case["weights"] is None else torch.tensor(case["weights"]).double()
    gamma = case.setdefault("focal_gamma", 2.0)
    if case["loss"] == "bce":
        loss = bce(logits, smooth, weights)
    elif case["loss"] == "focal":
        loss = focal(logits, smooth, weights, gamma)
        if smoothing == 0.0 and weights is None:
            known = torchvision.ops.sigmoid_focal_loss(logits, targets, -1, gamma, "mean")
            assert torch.allclose(loss, known, rtol=1e-12, atol=0), (loss, known)
    else:
        loss = soft_f1(logits, smooth)
    loss.backward()
    assert torch.isfinite(logits.grad).all(), case
    return case | {"value": loss.item(), "gradient": logits.grad.flatten().tolist()}


def main():
    """Writes the golden file."""
    logits, targets = problem()
    about = {
        "generator": "tests/golden/losses.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__.split("+")[0],
            "torchvision": torchvision.__version__.split("+")[0],
        },
        "seed": SEED,
        "shape": SHAPE,
        "logits": logits.flatten().tolist(),
        "targets": targets.flatten().int().tolist(),
    }
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    rows = [json.dumps(run(case, logits, targets)) for case in cases()]
    fields.append('"cases": [\n' + ",\n".join(rows) + "\n]")
    (HERE / "losses.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")


if __name__ == "__main__":
    main()
