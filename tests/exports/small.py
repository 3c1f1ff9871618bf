"""Writes the small exports of the network in `small_torch.py`, and their expected features.

The script runs every variant in ONNX Runtime and compares its features with torch's in float64. It
keeps the variants that differ in structure in small/. Run `small_keras.py` afterwards.

    python small.py [--all DIR]

Seed 893 (in `small_torch.py`). Generated with torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2,
onnxconverter-common 1.16.0, onnxruntime 1.32.0, numpy 2.4.6 on Python 3.11.
"""

import copy
import json
import warnings

import onnx
import torch

import common
import small_torch

FORMULA = "float32((i * 7919 % 10007) / 5003 - 1), i counting the values of [N,C,H,W] from 0"
# Exporter, whether BatchNorm is folded, the opsets that it writes, and those that are kept.
PLAIN = [
    ("legacy", False, (9, 11, 13, 17, 18, 20), (17,)),
    ("legacy", True, (9, 11, 13, 17, 18, 20), (9,)),
    ("dynamo", False, (18, 20), (18,)),
    ("dynamo", True, (18, 20), (20,)),
]


def write_expected():
    """Writes expected.json: the input, and torch's features in float64."""
    model = small_torch.make().double()
    with torch.no_grad():
        image = torch.from_numpy(common.image_batch(common.SHAPE)).double()
        features = model.feature_map(image).mean((2, 3))
        check_weights_matter(model, image, features)
    document = {
        "generator": f"tests/exports/small.py, torch {torch.__version__.split('+')[0]}, "
                     f"seed {small_torch.SEED}",
        "input_shape": list(common.SHAPE),
        "input": FORMULA,
        "features": features.tolist(),
    }
    common.SMALL.mkdir(exist_ok=True)
    (common.SMALL / "expected.json").write_text(json.dumps(document, indent=1) + "\n")


def check_weights_matter(model, image, features):
    """Raises unless swapping branches or channels changes the features."""
    def difference(other):
        found = other.feature_map(image).mean((2, 3))
        return common.relative_difference(found.numpy(), features.numpy())

    swapped = copy.deepcopy(model)
    branches = swapped.res1.branches
    branches[1], branches[2] = branches[2], branches[1]
    if difference(swapped) < 0.01:
        raise ValueError("swapping the twin branches has no effect; use another seed")
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 0 or name.startswith("fc.") or bool((tensor == tensor[0]).all()):
            continue
        kept = tensor.clone()
        tensor.copy_(kept.roll(1, 0))
        moved = difference(model)
        tensor.copy_(kept)
        if moved < 1e-3:
            raise ValueError(f"permuting {name} has no effect; use another seed")


def export(exporter, folded, opset, end="linear", **options):
    """Returns one variant, after checking that it is folded or not as requested."""
    model = small_torch.make(end)
    proto = common.torch_export(model, small_torch.SIZE, exporter, folded, opset, **options)
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    common.check_folding(proto, norms, folded)
    return common.shorten(proto)


def half(proto):
    """Converts weights and arithmetic to half precision; input and output stay in float32."""
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        # It warns about every tiny weight that it truncates.
        warnings.simplefilter("ignore")
        return common.shorten(float16.convert_float_to_float16(proto, keep_io_types=True))


def skeleton():
    """Returns the graph without the data of its weights, like the graphs of onnx/export.py."""
    script = common.load_export_script()
    proto = export("legacy", False, 17)
    script.undo_deduplication(proto.graph)
    script.strip_weights(proto.graph)
    return proto


def main():
    """Checks and writes every variant."""
    folder = common.parse_folder(__doc__)
    write_expected()
    for exporter, folded, opsets, kept in PLAIN:
        for opset in opsets:
            name = f"{exporter}-{'folded' if folded else 'kept'}-opset{opset}"
            proto = export(exporter, folded, opset)
            common.check_and_write(proto, name, opset in kept, folder)

    def special(name, proto, **save):
        common.check_and_write(proto, name, True, folder, **save)

    special("legacy-folded-opset13-inputs",
            export("legacy", True, 13, keep_initializers_as_inputs=True))
    special("legacy-folded-opset17-matmul", export("legacy", True, 17, "matmul"))
    special("legacy-folded-opset18-pooled", export("legacy", True, 18, "pooled"))
    special("legacy-folded-opset20-map", export("legacy", True, 20, "map"))
    special("legacy-folded-opset13-fp16", half(export("legacy", True, 13)))
    external = "legacy-folded-opset11-external"
    special(external, export("legacy", True, 11), save_as_external_data=True,
            location=f"{external}.onnx.data", size_threshold=0)
    onnx.save(skeleton(), str((folder or common.SMALL) / "skeleton.onnx"))


if __name__ == "__main__":
    main()
