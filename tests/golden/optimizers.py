#!/usr/bin/env python3
"""Writes reference runs of PyTorch's optimizers, weight decay and momentum: optimizers.json.

The problem is that of adadelta.py, split into a 2×4 matrix and a vector of 4. Weight decay applies
only to the matrix: tensors of rank 1 (biases, BatchNorm) are in a parameter group without it, as in
timm's `param_groups_weight_decay`. Each case contains the settings and the twelve parameters after
every tenth of 100 steps, in float64. Initial values and gradients are exact in float32.

    pip install torch numpy && python optimizers.py
"""

import json
import pathlib
import platform

import numpy
import torch

from adadelta import SEED, problem

HERE = pathlib.Path(__file__).resolve().parent
MATRIX = (2, 4)
EVERY = 10
CASES = {
    "adadelta": ("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 1e-4, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
    "adamw-defaults": ("AdamW", {}),
    "sgd": ("SGD", {"lr": 1e-3}),
    "sgd-decay": ("SGD", {"lr": 1e-3, "weight_decay": 0.1}),
    "sgd-momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1}),
    "sgd-nesterov": ("SGD", {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
}


def run(name, settings, initial, gradients):
    """Returns the settings and the parameters [10, 12] after every tenth step."""
    size = MATRIX[0] * MATRIX[1]

    def cut(values):
        values = torch.tensor(values)
        return values[:size].reshape(MATRIX), values[size:]

    parameters = [torch.nn.Parameter(part.clone()) for part in cut(initial)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = getattr(torch.optim, name)(groups, **settings)
    trace = []
    for step, gradient in enumerate(gradients, 1):
        for parameter, part in zip(parameters, cut(gradient)):
            parameter.grad = part.clone()
        optimizer.step()
        if step % EVERY == 0:
            trace.append(torch.cat([p.detach().flatten() for p in parameters]).tolist())
    kept = ("lr", "momentum", "nesterov", "weight_decay")
    return {"settings": {k: v for k, v in optimizer.defaults.items() if k in kept}, "trace": trace}


def main():
    """Writes the golden file."""
    initial, gradients = problem()
    about = {
        "generator": "tests/golden/optimizers.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__.split("+")[0],
        },
        "seed": SEED,
        "matrix": MATRIX,
        "every": EVERY,
        "problem": "initial and gradients of adadelta.json",
    }
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    for case, (name, settings) in CASES.items():
        result = run(name, settings, initial, gradients)
        rows = ",\n".join(json.dumps(row) for row in result["trace"])
        settings = json.dumps(result["settings"])
        fields.append(f'"{case}": {{"settings": {settings}, "trace": [\n{rows}\n]}}')
        moved = numpy.abs(numpy.array(result["trace"][-1]) - initial)
        print(f"{case}: parameters moved by {moved.min():.1e} to {moved.max():.1e}")
    (HERE / "optimizers.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")


if __name__ == "__main__":
    main()
