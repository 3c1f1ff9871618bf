#!/usr/bin/env python3
"""Writes reference outputs and gradients of PyTorch's BatchNorm2d: batch_norm.safetensors.

There are two cases, both with momentum 0.1: `torchvision` (3 channels, eps 1e-5) and `timm`
(5 channels, eps 1e-3, as in its InceptionResNetV2). Values are computed in float64 and stored as
float32. The metadata entry `about` contains versions, seed and settings as JSON. The tensors of a
case, `<case>.<name>`:

    gamma, beta, running_mean_0, running_var_0    [C]          before the first step
    input_1, input_2, input_3                     [4,C,6,5]    three training batches
    output_1, output_2, output_3                  [4,C,6,5]    their outputs in training mode
    running_mean_1.._3, running_var_1.._3         [C]          after each batch
    output_eval                                   [4,C,6,5]    input_1 in eval mode, at the end
    w                                             [4,C,6,5]    weights of the loss
    grad_input, grad_gamma, grad_beta                          of sum(output_1 * w)

    pip install torch numpy safetensors && python batch_norm.py
"""

import json
import pathlib
import platform

import safetensors
import safetensors.torch
import torch

SEED = 40
MOMENTUM = 0.1
CASES = {"torchvision": (3, 1e-5), "timm": (5, 1e-3)}
HERE = pathlib.Path(__file__).resolve().parent


def run_case(channels, eps, rng):
    """Returns the tensors of one case by name, float64."""

    def normal(*shape):
        # Rounded to float32 first, so that the stored values are exactly those of the computation.
        return torch.randn(*shape, generator=rng).double()

    def uniform(*shape):
        return (torch.rand(*shape, generator=rng) + 0.5).double()

    norm = torch.nn.BatchNorm2d(channels, eps=eps, momentum=MOMENTUM).double().train()
    with torch.no_grad():
        for tensor, values in (
            (norm.weight, uniform(channels)),
            (norm.bias, normal(channels)),
            (norm.running_mean, normal(channels)),
            (norm.running_var, uniform(channels)),
        ):
            tensor.copy_(values)
    tensors = {
        "gamma": norm.weight,
        "beta": norm.bias,
        "running_mean_0": norm.running_mean,
        "running_var_0": norm.running_var,
        "w": normal(4, channels, 6, 5),
    }
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    for step in (1, 2, 3):
        # Each channel and each batch has its own mean and spread.
        spread, mean = uniform(1, channels, 1, 1), normal(1, channels, 1, 1)
        batch = (normal(4, channels, 6, 5) * spread + mean).float().double()
        batch.requires_grad_(step == 1)
        output = norm(batch)
        if step == 1:
            (output * tensors["w"]).sum().backward()
            tensors["grad_input"] = batch.grad
            tensors["grad_gamma"] = norm.weight.grad
            tensors["grad_beta"] = norm.bias.grad
        tensors[f"input_{step}"] = batch.detach()
        tensors[f"output_{step}"] = output.detach()
        tensors[f"running_mean_{step}"] = norm.running_mean.clone()
        tensors[f"running_var_{step}"] = norm.running_var.clone()

    with torch.no_grad():
        tensors["output_eval"] = norm.eval()(tensors["input_1"])
    return tensors


def main():
    """Writes the golden file."""
    rng = torch.Generator().manual_seed(SEED)
    tensors = {
        f"{case}.{name}": tensor.float().contiguous()
        for case, (channels, eps) in CASES.items()
        for name, tensor in run_case(channels, eps, rng).items()
    }
    about = {
        "generator": "tests/golden/batch_norm.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "safetensors": safetensors.__version__,
        },
        "seed": SEED,
        "momentum": MOMENTUM,
        "eps": {case: eps for case, (_, eps) in CASES.items()},
    }
    # One entry: with several, safetensors writes them in an order that changes from run to run.
    file = HERE / "batch_norm.safetensors"
    safetensors.torch.save_file(tensors, file, metadata={"about": json.dumps(about)})
    file.chmod(0o644)


if __name__ == "__main__":
    main()
