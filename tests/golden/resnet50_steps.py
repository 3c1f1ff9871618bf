#!/usr/bin/env python3
"""50 training steps of PyTorch's ResNet50: resnet50_steps.json and resnet50_steps.safetensors.

torchvision's ResNet50 with the stem widened to four channels (yellow zero, as `rgby convert` does)
and 28 classes; binary cross-entropy on the logits, PyTorch's Adadelta, no dropout; 64×64, batches
of 16, five of them over and over, in float64. Weights, images and labels are not stored: `noise`
makes them from names, in integers, and the test makes the same ones.

Training can be chaotic: at a learning rate of 1, or with images of plain noise, PyTorch in float32
is 30% off PyTorch in float64 after 50 steps. This one is not. `spread` says by how much the two
differ here: the largest relative difference of a loss, and of each tensor of running statistics
the largest difference over the tensor's largest value.

`losses` holds the loss before each step; the safetensors file holds the running statistics after
the last step by torchvision's names, as float32.

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
    """Uniform float32 values in [low, high), each a hash of its tensor's name and its place.

    FNV-1a of the name plus the place, mixed by lowbias32 (Wellons 2018).
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
    """The value of a tensor of the network before the first step."""
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
    """The network before its first step."""
    model = torchvision.models.resnet50(weights=None, num_classes=CLASSES)
    model.conv1 = torch.nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    state = {
        name: tensor if name.endswith("tracked") else initial(name, tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.to(dtype).train()


def batch(number, dtype):
    """Images, in patches so that they differ after pooling too, and targets of a batch."""
    images = noise(f"images {number}", (BATCH, 4, SIDE // PATCH, SIDE // PATCH), -1, 1)
    images = images.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    targets = noise(f"targets {number}", (BATCH, CLASSES), 0, 1) < 0.15
    return images.to(dtype), targets.to(dtype)


def train(dtype):
    """Losses of the steps, and the running statistics after them."""
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
    """Writes the files."""
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
