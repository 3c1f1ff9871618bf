#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "torchvision", "timm", "onnx", "onnxscript"]
# ///
"""Exports ResNet50, InceptionResNetV2 and DenseNet121 to ONNX with every BatchNorm kept.

An eval-mode export usually folds BatchNorm into the convolutions, which loses its statistics.
This script exports without folding and verifies that every BatchNorm was kept.

    python export.py --arch resnet50 --pretrained --out resnet50.onnx     # the file to convert
    python export.py --arch resnet50 --random-seed 0 --out random.onnx    # no download, for tests
    python export.py --skeletons                                          # the graphs in onnx/

It needs Python 3.10 or later and: pip install torch torchvision timm onnx onnxscript
(`uv run export.py` instead of `python export.py` installs them by itself)
"""

import argparse
import collections
import collections.abc
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import sys
import tempfile
import warnings

INSTALL = "pip install torch torchvision timm onnx onnxscript"

try:
    import onnx
    import timm
    import torch
    import torchvision
except ImportError as error:
    sys.exit(f"export.py: {error.name or error} is not installed\nhint: {INSTALL}")

# PyTorch's exporters: the first and last opset of each, and its default opset.
# The legacy exporter writes plain Conv/BatchNormalization/Relu graphs.
OPSETS = {"legacy": (9, 20), "dynamo": (18, 23)}
DEFAULT_OPSET = {"legacy": 17, "dynamo": 20}
DYNAMIC_AXES = {"input": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch"}}
# Range of the mean pooled feature. Outside it, random weights make the features vanish or explode.
SANE_FEATURES = (1e-2, 1e2)


@dataclasses.dataclass
class Arch:
    """A network: its constructor, its classifier layer, and the last layer of residual branches."""

    file: str
    image_size: int
    make: collections.abc.Callable[[bool], torch.nn.Module]
    classifier: str
    branch_end: str | None = None


def resnet50_v1(pretrained):
    """ResNet50 as published: the stride of a block is in its first 1x1 convolution."""
    if pretrained:
        sys.exit(
            "export.py: torchvision and timm have no ImageNet weights for resnet50-v1\n"
            "hint: get them\n"
            "- from Keras:\n"
            "    pip install tensorflow tf2onnx\n"
            "    python -c \"import keras; "
            "keras.applications.ResNet50().export('resnet50_keras')\"\n"
            "    python -m tf2onnx.convert --saved-model resnet50_keras --opset 17 "
            "--output resnet50_v1.onnx\n"
            "- or from the ONNX model zoo: resnet50-v1-12.onnx\n"
            "or use --arch resnet50, for which torchvision has weights"
        )
    model = torchvision.models.resnet50(weights=None)
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, layer[0].conv1.stride
    return model


ARCHS = {
    "resnet50": Arch(
        file="resnet50.onnx",
        image_size=224,
        make=lambda pretrained: torchvision.models.resnet50(
            weights="IMAGENET1K_V2" if pretrained else None
        ),
        classifier="fc",
        branch_end="bn3",
    ),
    "resnet50-v1": Arch(
        file="resnet50_v1.onnx",
        image_size=224,
        make=resnet50_v1,
        classifier="fc",
        branch_end="bn3",
    ),
    "inception-resnet-v2": Arch(
        file="inception_resnet_v2.onnx",
        image_size=299,
        make=lambda pretrained: timm.create_model(
            "inception_resnet_v2.tf_in1k", pretrained=pretrained
        ),
        # Its branches end in a plain convolution, and the graph itself scales their output.
        classifier="classif",
    ),
    "densenet121": Arch(
        file="densenet121.onnx",
        image_size=224,
        make=lambda pretrained: torchvision.models.densenet121(
            weights="IMAGENET1K_V1" if pretrained else None
        ),
        classifier="classifier",
    ),
}


def randomise(model, arch, seed):
    """Fills `model` with random weights: no layer is an identity, and no two tensors are equal."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.uniform_(low, high, generator=rng)

    def normal(tensor, std):
        tensor.normal_(0.0, std, generator=rng)

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                fan_in = module.weight[0].numel()
                normal(module.weight, (2.0 / fan_in) ** 0.5)
                if module.bias is not None:
                    normal(module.bias, 0.1)
            elif isinstance(module, torch.nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.5)
                if arch.branch_end and name.endswith(arch.branch_end):
                    # Otherwise the sum would grow with each block.
                    module.weight.mul_(0.25)
                normal(module.bias, 0.1)
                normal(module.running_mean, 0.1)
                uniform(module.running_var, 0.5, 1.5)


def pooled_features(model, arch, image_size):
    """Returns the pooled features [2, features] of `model` for two random images."""
    features = []
    hook = model.get_submodule(arch.classifier).register_forward_pre_hook(
        lambda _module, inputs: features.append(inputs[0])
    )
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model(torch.randn(2, 3, image_size, image_size, generator=rng))
    hook.remove()
    return features[0]


def export(model, image_size, exporter, opset):
    """Returns the ONNX model of `model` as the exporter writes it."""
    example = torch.zeros(2, 3, image_size, image_size)
    names = {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            auto = torch.export.Dim.AUTO
            program = torch.onnx.export(
                model, (example,), dynamo=True, optimize=False, opset_version=opset,
                dynamic_shapes=({0: auto, 2: auto, 3: auto},), **names,
            )
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(
            model, (example,), buffer, dynamo=False, do_constant_folding=False,
            # PRESERVE keeps the model in eval mode, and no peephole pass folds BatchNorm.
            training=torch.onnx.TrainingMode.PRESERVE, opset_version=opset,
            dynamic_axes=DYNAMIC_AXES, **names,
        )
        return onnx.load_from_string(buffer.getvalue())


def undo_deduplication(graph):
    """Gives each name its own initializer; the exporter shares equal ones through Identity."""
    by_name = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in by_name:
            copy = onnx.TensorProto()
            copy.CopyFrom(by_name[node.input[0]])
            copy.name = node.output[0]
            by_name[copy.name] = copy
        else:
            kept.append(node)
    replace(graph.node, kept)
    used = dict.fromkeys(name for node in kept for name in node.input if name in by_name)
    replace(graph.initializer, [by_name[name] for name in used])


def replace(field, values):
    """Replaces the content of the repeated protobuf `field` with `values`."""
    values = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(values)


def name_axes(graph):
    """Names the symbolic axes; the dynamo exporter uses names like s77."""
    for value in [*graph.input, *graph.output]:
        for axis, name in DYNAMIC_AXES.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = name


def clean(proto, arch):
    """Removes doc strings, source lines and intermediate shapes."""
    proto.producer_version = torch.__version__.split("+")[0]
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name = arch.file.removesuffix(".onnx")
    graph.ClearField("doc_string")
    for field in (graph.value_info, graph.metadata_props, graph.quantization_annotation):
        del field[:]
    for part in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("doc_string")
        del part.metadata_props[:]


def check_norms(graph, model):
    """Exits unless the graph has as many BatchNormalization nodes as `model` has layers."""
    wanted = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    found = sum(node.op_type == "BatchNormalization" for node in graph.node)
    if found != wanted:
        sys.exit(
            f"export.py: the exporter kept {found} of {wanted} BatchNorm layers\n"
            "hint: use --exporter legacy, or torch 2.15.0, with which this script was tested"
        )


def strip_weights(graph):
    """Removes the data of the initializers and keeps their names, dims and types."""
    for tensor in graph.initializer:
        dims, data_type, name = list(tensor.dims), tensor.data_type, tensor.name
        tensor.Clear()
        tensor.dims.extend(dims)
        tensor.data_type, tensor.name = data_type, name


def write(path, data):
    """Writes `data` to `path` atomically."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-", delete=False) as file:
            temporary = file.name
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            pathlib.Path(temporary).unlink(missing_ok=True)
        sys.exit(
            f"export.py: cannot write {path}: {error.strerror}\n"
            "hint: use a file in an existing, writable folder"
        )


def report(path, data, proto):
    """Prints size, hash and operators of the file."""
    ops = collections.Counter(node.op_type for node in proto.graph.node)
    print(f"{path}: {len(data):,} bytes, opset {proto.opset_import[0].version}")
    print(f"  sha256 {hashlib.sha256(data).hexdigest()}")
    counts = ", ".join(f"{count} {op}" for op, count in ops.most_common())
    print(f"  {len(proto.graph.node)} nodes: {counts}")
    print(f"  {len(proto.graph.initializer)} initializers")


def make_model(arch, pretrained, seed):
    """Returns the network in eval mode, with ImageNet or random weights."""
    if not pretrained:
        model = arch.make(False)
        randomise(model, arch, seed)
        return model.eval()
    try:
        return arch.make(True).eval()
    except (OSError, RuntimeError) as error:
        sys.exit(
            f"export.py: cannot load the ImageNet weights: {error}\n"
            "hint: they are downloaded on first use; check the connection, or omit --pretrained"
        )


def run(args, arch, path):
    """Builds, exports, checks and writes one network."""
    model = make_model(arch, args.pretrained, args.random_seed or 0)
    size = args.image_size or arch.image_size
    features = pooled_features(model, arch, size)
    low, mean, high = features.min().item(), features.mean().item(), features.max().item()
    print(f"pooled features of {size}x{size} noise: {low:.4g} to {high:.4g}, mean {mean:.4g}")
    if not args.pretrained and not SANE_FEATURES[0] < mean < SANE_FEATURES[1]:
        sys.exit(
            "export.py: with these random weights the features vanish or explode\n"
            "hint: use another --random-seed"
        )

    proto = export(model, size, args.exporter, args.opset or DEFAULT_OPSET[args.exporter])
    undo_deduplication(proto.graph)
    name_axes(proto.graph)
    clean(proto, arch)
    check_norms(proto.graph, model)
    onnx.checker.check_model(proto)
    if args.skeletons:
        strip_weights(proto.graph)
    data = proto.SerializeToString(deterministic=True)
    write(path, data)
    report(path, data, proto)


def parse_args():
    """Parses and validates the command line."""
    parser = argparse.ArgumentParser(
        description="Export a network to ONNX with every BatchNorm kept.",
        epilog="example: python export.py --arch resnet50 --pretrained --out resnet50.onnx",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--arch", choices=sorted(ARCHS), help="network to export")
    what.add_argument("--skeletons", action="store_true",
                      help="write every graph, without weight data, beside this script")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE",
                        help="output file (with --arch)")
    parser.add_argument("--pretrained", action="store_true",
                        help="use ImageNet weights, which are downloaded (default: random)")
    parser.add_argument("--random-seed", type=int, metavar="N",
                        help="seed of the random weights (default 0)")
    parser.add_argument("--exporter", choices=sorted(DEFAULT_OPSET), default="legacy",
                        help="PyTorch exporter (default legacy)")
    parser.add_argument("--opset", type=int, metavar="N",
                        help="ONNX opset (default 17, with --exporter dynamo 20)")
    parser.add_argument("--image-size", type=int, metavar="N",
                        help="image side for tracing (default 224 or 299); "
                             "the exported graph accepts any size")
    args = parser.parse_args()
    others = [args.out, args.random_seed, args.opset, args.image_size]
    if args.arch and args.out is None:
        parser.error("--arch needs --out FILE")
    if args.skeletons and (
        any(value is not None for value in others)
        or args.pretrained or args.exporter != "legacy"
    ):
        parser.error("--skeletons takes no other option, because its files are always the same")
    if args.pretrained and args.random_seed is not None:
        parser.error("--pretrained and --random-seed exclude each other")
    first, last = OPSETS[args.exporter]
    if args.opset is not None and not first <= args.opset <= last:
        parser.error(f"--opset {args.opset}: --exporter {args.exporter} writes {first} to {last}")
    if args.image_size is not None and args.image_size < 75:
        parser.error(f"--image-size {args.image_size}: the minimum is 75")
    return args


def main():
    """Exports the networks that the command line names."""
    args = parse_args()
    if args.skeletons:
        for arch in ARCHS.values():
            run(args, arch, pathlib.Path(__file__).resolve().parent / arch.file)
    else:
        run(args, ARCHS[args.arch], args.out)


if __name__ == "__main__":
    main()
