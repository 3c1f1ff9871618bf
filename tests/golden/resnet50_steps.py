#!/usr/bin/env python3
"""Trains PyTorch's ResNet50 for 50 steps: resnet50_steps.json and resnet50_steps.safetensors.

The network is torchvision's ResNet50 with 28 classes and a stem of four channels (yellow is zero,
as `rgby convert` does). The training uses binary cross-entropy on the logits, PyTorch's Adadelta,
no dropout, 64×64 pixels, and five batches of 16 repeated, in float64. Weights, images and labels
are not stored: `noise` computes them from names in integer arithmetic, and the test does the same.

Training can be chaotic: at a learning rate of 1, or with images of plain noise, PyTorch in float32
differs from float64 by 30% after 50 steps. These settings avoid that. `spread` has the difference
between the two: the largest relative difference of a loss, and for the tensors of running
statistics the largest difference over the tensor's largest value.

`losses` has the loss before each step. The safetensors file has the running statistics after the
last step, by torchvision's names, as float32.

    pip install torch torchvision numpy safetensors && python resnet50_steps.py
"""

import json
import pathlib
import platform

import numpy
import safetensors
import safetensors.torch
import torch
import torchvision

STEPS, BATCHES, BATCH, SIDE, CLASSES = 50, 5, 16, 64, 28
PATCH = 16
LEARNING_RATE = 0.01
HERE = pathlib.Path(__file__).resolve().parent


def noise(name, shape, low, high):
    """Returns uniform float32 values in [low, high), each a hash of tensor name and index.

    FNV-1a of the name plus the index, mixed by lowbias32 (Wellons 2018).
    """
    start = 0x811C9DC5
    for byte in name.encode():
        start = (start ^ byte) * 0x01000193 & 0xFFFFFFFF
    x = numpy.arange(numpy.prod(shape), dtype=numpy.uint32)
    x = x * numpy.uint32(0x9E3779B9) + numpy.uint32(start)
    x ^= x >> numpy.uint32(16)
    x *= numpy.uint32(0x7FEB352D)
    x ^= x >> numpy.uint32(15)
    x *= numpy.uint32(0x846CA68B)
    x ^= x >> numpy.uint32(16)
    unit = (x >> numpy.uint32(8)).astype(numpy.float32) / numpy.float32(1 << 24)
    low, high = numpy.float32(low), numpy.float32(high)
    return torch.from_numpy((low + (high - low) * unit).reshape(shape))


def initial(name, shape):
    """Returns a tensor of the network before the first step."""
    if name.startswith("fc."):
        return noise(name, shape, -0.02, 0.02)
    if name.endswith("bn3.weight"):
        return noise(name, shape, 0.1, 0.3)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return noise(name, shape, 0.5, 1.5)
    if len(shape) == 1:
        return noise(name, shape, -0.2, 0.2)
    if name == "conv1.weight":
        shape = (shape[0], 3, *shape[2:])
    bound = float(numpy.sqrt(numpy.float32(6) / numpy.float32(numpy.prod(shape[1:]))))
    weight = noise(name, shape, -bound, bound)
    if name == "conv1.weight":
        weight = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)
    return weight


def network(dtype):
    """Returns the network before its first step."""
    model = torchvision.models.resnet50(weights=None, num_classes=CLASSES)
    model.conv1 = torch.nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    state = {
        name: tensor if name.endswith("tracked") else initial(name, tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.to(dtype).train()


def batch(number, dtype):
    """Returns images and targets of a batch. Images consist of patches, to differ after pooling."""
    images = noise(f"images {number}", (BATCH, 4, SIDE // PATCH, SIDE // PATCH), -1, 1)
    images = images.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    targets = noise(f"targets {number}", (BATCH, CLASSES), 0, 1) < 0.15
    return images.to(dtype), targets.to(dtype)


def train(dtype):
    """Returns the losses of the steps, and the running statistics after them."""
    model = network(dtype)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=LEARNING_RATE)
    batches = [batch(number, dtype) for number in range(BATCHES)]
    losses = []
    for step in range(STEPS):
        images, targets = batches[step % BATCHES]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    statistics = {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if "running" in name
    }
    return losses, statistics


def main():
    """Writes the golden files."""
    losses, statistics = train(torch.float64)
    rough_losses, rough = train(torch.float32)
    spread = {
        "loss": max(abs(a - b) / a for a, b in zip(losses, rough_losses)),
        "statistics": max(
            ((rough[name] - tensor).abs().max() / tensor.abs().max()).item()
            for name, tensor in statistics.items()
        ),
    }
    about = {
        "generator": "tests/golden/resnet50_steps.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__.split("+")[0],
            "torchvision": torchvision.__version__.split("+")[0],
            "safetensors": safetensors.__version__,
        },
        "seed": "none: all values are hashes",
        "learning_rate": LEARNING_RATE,
        "spread": spread,
        "losses": losses,
    }
    (HERE / "resnet50_steps.json").write_text(json.dumps(about, indent=1) + "\n")
    tensors = {name: tensor.float().contiguous() for name, tensor in statistics.items()}
    file = HERE / "resnet50_steps.safetensors"
    safetensors.torch.save_file(tensors, file)
    file.chmod(0o644)


if __name__ == "__main__":
    main()
