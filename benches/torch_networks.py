#!/usr/bin/env python3
"""The networks of rgby's comparisons in plain PyTorch: ResNet50 and InceptionResNetV2.

    python benches/torch_networks.py --check      compares them with torchvision and timm

For machines that have PyTorch, but neither torchvision nor timm. The modules have the names that
torchvision and timm use, so weights of both fit. `load_export` reads the weights of a file that
`rgby export` wrote, without the package `onnx`. `--check` needs torchvision and timm; it fails
unless names and shapes are the same and the outputs agree to 1e-5.
"""

import argparse
import sys

import torch
from torch import nn

NETWORKS = ("resnet50", "inception-resnet-v2")


class Bottleneck(nn.Module):
    """A residual block of ResNet50, with the stride on the 3x3 convolution."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            convolution = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """ResNet50 as in torchvision; He et al. 2015, «Deep Residual Learning for Image Recognition»."""

    def __init__(self, channels=4, classes=28):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
            layer = []
            for block in range(blocks):
                stride = 2 if number > 1 and block == 0 else 1
                layer.append(Bottleneck(inputs, width, stride))
                inputs = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, classes)

    def features(self, x):
        """Returns the pooled features [N, 2048]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class ConvNormAct(nn.Module):
    """A convolution without bias, BatchNorm and ReLU."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


def chain(*layers):
    """Returns one layer, or a sequence of `ConvNormAct` arguments and modules."""
    layers = [ConvNormAct(*layer) if isinstance(layer, tuple) else layer for layer in layers]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class Branches(nn.Module):
    """Branches that read the same input; their outputs are concatenated."""

    def __init__(self, *branches):
        super().__init__()
        self.count = len(branches)
        for number, branch in enumerate(branches):
            setattr(self, f"branch{number}", branch)

    def concatenated(self, x):
        return torch.cat([getattr(self, f"branch{number}")(x) for number in range(self.count)], 1)

    def forward(self, x):
        return self.concatenated(x)


class Residual(Branches):
    """Branches, projected by a 1x1 convolution, scaled and added to the input."""

    def __init__(self, joined, channels, scale, *branches, relu=True):
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.relu = relu

    def forward(self, x):
        x = self.conv2d(self.concatenated(x)) * self.scale + x
        return torch.relu(x) if self.relu else x


def block35():
    branches = [
        chain((320, 32, 1)),
        chain((320, 32, 1), (32, 32, 3, 1, 1)),
        chain((320, 32, 1), (32, 48, 3, 1, 1), (48, 64, 3, 1, 1)),
    ]
    return Residual(128, 320, 0.17, *branches)


def block17():
    branches = [
        chain((1088, 192, 1)),
        chain((1088, 128, 1), (128, 160, (1, 7), 1, (0, 3)), (160, 192, (7, 1), 1, (3, 0))),
    ]
    return Residual(384, 1088, 0.10, *branches)


def block8(scale=0.20, relu=True):
    branches = [
        chain((2080, 192, 1)),
        chain((2080, 192, 1), (192, 224, (1, 3), 1, (0, 1)), (224, 256, (3, 1), 1, (1, 0))),
    ]
    return Residual(448, 2080, scale, *branches, relu=relu)


class InceptionResNetV2(nn.Module):
    """InceptionResNetV2 as in timm; Szegedy et al. 2016, «Inception-v4, Inception-ResNet»."""

    def __init__(self, channels=4, classes=28):
        super().__init__()
        self.conv2d_1a = ConvNormAct(channels, 32, 3, 2)
        self.conv2d_2a = ConvNormAct(32, 32, 3)
        self.conv2d_2b = ConvNormAct(32, 64, 3, 1, 1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvNormAct(64, 80, 1)
        self.conv2d_4a = ConvNormAct(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        self.mixed_5b = Branches(
            chain((192, 96, 1)),
            chain((192, 48, 1), (48, 64, 5, 1, 2)),
            chain((192, 64, 1), (64, 96, 3, 1, 1), (96, 96, 3, 1, 1)),
            chain(nn.AvgPool2d(3, 1, 1, count_include_pad=False), (192, 64, 1)),
        )
        self.repeat = nn.Sequential(*[block35() for _ in range(10)])
        self.mixed_6a = Branches(
            chain((320, 384, 3, 2)),
            chain((320, 256, 1), (256, 256, 3, 1, 1), (256, 384, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_1 = nn.Sequential(*[block17() for _ in range(20)])
        self.mixed_7a = Branches(
            chain((1088, 256, 1), (256, 384, 3, 2)),
            chain((1088, 256, 1), (256, 288, 3, 2)),
            chain((1088, 256, 1), (256, 288, 3, 1, 1), (288, 320, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*[block8() for _ in range(9)])
        self.block8 = block8(1.0, relu=False)
        self.conv2d_7b = ConvNormAct(2080, 1536, 1)
        self.classif = nn.Linear(1536, classes)

    def features(self, x):
        """Returns the pooled features [N, 1536]."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x)))
        x = self.repeat(self.mixed_5b(self.maxpool_5a(x)))
        x = self.repeat_2(self.mixed_7a(self.repeat_1(self.mixed_6a(x))))
        return self.conv2d_7b(self.block8(x)).mean((2, 3))

    def forward(self, x):
        return self.classif(self.features(x))


def network(name, channels=4, classes=28):
    """Returns a network with random weights, in training mode."""
    types = {"resnet50": ResNet50, "inception-resnet-v2": InceptionResNetV2}
    return types[name](channels, classes).train()


def fields(data):
    """Yields number and value of each field of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        wire = tag & 7
        if wire == 0:
            yield tag >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length = varint()
        if length is None or at + length > len(data):
            raise ValueError(f"not a protobuf message: wire type {wire} at byte {at}")
        yield tag >> 3, data[at : at + length]
        at += length


def raw_initializers(model):
    """Yields name, shape and bytes of each float32 initializer of an ONNX file in memory."""
    graph = next(value for number, value in fields(model) if number == 7)
    for number, value in fields(graph):
        if number != 5:
            continue
        shape, kind, name, raw = [], 0, "", None
        for field, content in fields(value):
            if field == 1:
                shape += list(unpacked(content)) if isinstance(content, memoryview) else [content]
            elif field == 2:
                kind = content
            elif field == 8:
                name = bytes(content).decode()
            # Packed `float_data` has the same bytes as `raw_data`.
            elif field in (4, 9):
                raw = content
        if kind == 1 and raw is not None:
            yield name, shape, raw


def initializers(path):
    """Returns the float32 initializers of an ONNX file without external data, by name."""
    with open(path, "rb") as file:
        model = memoryview(file.read())
    found = {}
    for name, shape, raw in raw_initializers(model):
        found[name] = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)
    return found


def rewrite_export(source, target, change):
    """Copies an ONNX file with other initializers: `change(name, shape)` returns a tensor or None."""
    with open(source, "rb") as file:
        data = bytearray(file.read())
    for name, shape, raw in raw_initializers(memoryview(data)):
        values = change(name, shape)
        if values is not None:
            raw[:] = values.to(torch.float32).contiguous().numpy().tobytes()
    with open(target, "wb") as file:
        file.write(data)


def unpacked(data):
    """Yields the varints of a packed field."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def export_state(path, model):
    """Returns a state of `model` with the tensors of a file that `rgby export` wrote.

    Fails if a tensor is missing or left over, or has another shape.
    """
    tensors = initializers(path)
    head = "fc" if hasattr(model, "fc") else "classif"
    state, used = {}, set()
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = tensor
            continue
        source = f"backbone.{name}"
        if name.startswith(f"{head}."):
            source = name.replace(head, "head.output", 1)
        found = tensors[source]
        if name == f"{head}.weight" and found.shape != tensor.shape:
            found = found.T
        if found.shape != tensor.shape:
            raise ValueError(f"{source}: {tuple(found.shape)}, not {tuple(tensor.shape)}")
        state[name] = found.contiguous()
        used.add(source)
    left = [name for name in tensors if name.startswith(("backbone.", "head.")) and name not in used]
    if left:
        raise ValueError(f"{path}: not used: {', '.join(left[:5])}")
    return state


def load_export(path, model):
    """Loads the weights and statistics of a file that `rgby export` wrote."""
    model.load_state_dict(export_state(path, model))
    return model


def check():
    """Compares the networks with torchvision and timm."""
    import timm
    import torchvision

    theirs = {
        "resnet50": torchvision.models.resnet50(num_classes=28),
        "inception-resnet-v2": timm.create_model("inception_resnet_v2", num_classes=28),
    }
    for name, reference in theirs.items():
        torch.manual_seed(1)
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        ours = network(name, channels=3)
        ours.load_state_dict(reference.state_dict())
        images = torch.randn(2, 3, 139, 139)
        for mode in (False, True):
            reference.train(mode)
            ours.train(mode)
            with torch.no_grad():
                expected, found = reference(images), ours(images)
            gap = ((expected - found).abs().max() / expected.abs().max()).item()
            count = sum(parameter.numel() for parameter in ours.parameters())
            stage = "training" if mode else "inference"
            print(f"{name}: {count} parameters, {stage}: outputs differ by {gap:.1e}")
            if not gap <= 1e-5:
                sys.exit(f"{name} differs from the reference")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with torchvision and timm")
    if not parser.parse_args().check:
        parser.error("nothing to do; use --check")
    check()


if __name__ == "__main__":
    main()
