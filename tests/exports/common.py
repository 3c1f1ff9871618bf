"""Shared code of the generators: exporters, test image, pooled features by ONNX Runtime.

Needs numpy, onnx and onnxruntime; torch and tensorflow only for their exporters.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

import numpy
import onnx
import onnxruntime

POOLS = ("GlobalAveragePool", "ReduceMean")
SMALL = pathlib.Path(__file__).resolve().parent / "small"
# The input of the small network.
SHAPE = (2, 3, 96, 96)
TOLERANCE, FP16_TOLERANCE = 1e-4, 1e-2


def image_batch(shape):
    """Returns a batch [N,C,H,W] of numbers in −1…1, by a formula that any language can repeat."""
    index = numpy.arange(numpy.prod(shape), dtype=numpy.int64)
    return ((index * 7919 % 10007) / 5003 - 1).astype(numpy.float32).reshape(shape)


def feature_name(graph):
    """Returns the name of the pooled features, or of the feature map if the graph does not pool."""
    pooled = [node.output[0] for node in graph.node if node.op_type in POOLS]
    return pooled[-1] if pooled else graph.output[0].name


def open_session(path, output):
    """Returns a session of the model at `path` with `output` as its only output."""
    proto = onnx.load(path, load_external_data=False)
    if output != proto.graph.output[0].name:
        del proto.graph.output[:]
        proto.graph.output.append(onnx.ValueInfoProto(name=output))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # In the folder of the original, because the paths of external data are relative to it.
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as cut:
        cut.write(proto.SerializeToString())
        cut.flush()
        return onnxruntime.InferenceSession(
            cut.name, options, providers=["CPUExecutionProvider"]
        )


def pooled_features(path, batch):
    """Returns the pooled features [N,F] of the model at `path` for the batch [N,C,H,W]."""
    graph = onnx.load(path, load_external_data=False).graph
    session = open_session(path, feature_name(graph))
    given = session.get_inputs()[0]
    channels_last = given.shape[1] != batch.shape[1] and given.shape[3] == batch.shape[1]
    fed = batch.transpose(0, 2, 3, 1) if channels_last else batch
    (output,) = session.run(None, {given.name: fed})
    output = output.astype(numpy.float64)
    if output.ndim == 4 and max(output.shape[2:]) > 1 and output.shape[1] == output.shape[2]:
        return output.mean((1, 2))
    return output.mean((2, 3)) if output.ndim == 4 else output


def relative_difference(found, wanted):
    """Returns the largest difference between two arrays, relative to the largest expected value."""
    found, wanted = numpy.asarray(found), numpy.asarray(wanted)
    if found.shape != wanted.shape:
        raise ValueError(f"shapes differ: {found.shape} found, {wanted.shape} wanted")
    return float(numpy.abs(found - wanted).max() / numpy.abs(wanted).max())


def torch_export(model, size, exporter, folded, opset, **options):
    """Returns the ONNX model that a torch exporter writes for `model`, for any batch and size."""
    import torch

    example = (torch.zeros(2, 3, size, size),)
    names = {"input_names": ["input"], "output_names": ["output"], "opset_version": opset}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            auto = torch.export.Dim.AUTO
            program = torch.onnx.export(
                model, example, dynamo=True, optimize=folded,
                dynamic_shapes=({0: auto, 2: auto, 3: auto},), **names, **options,
            )
            return program.model_proto
        mode = torch.onnx.TrainingMode
        buffer = io.BytesIO()
        torch.onnx.export(
            model, example, buffer, dynamo=False, do_constant_folding=folded,
            training=mode.EVAL if folded else mode.PRESERVE,
            dynamic_axes={"input": {0: "batch", 2: "height", 3: "width"}}, **names, **options,
        )
        return onnx.load_from_string(buffer.getvalue())


def check_folding(proto, norms, folded):
    """Raises unless the exporter kept all `norms` BatchNorms, or fewer if it folds."""
    found = sum(node.op_type == "BatchNormalization" for node in proto.graph.node)
    if (found < norms) != folded:
        wanted = "fewer than" if folded else "all of"
        raise ValueError(f"the exporter kept {found} BatchNorms, {wanted} {norms} expected")


def strip_notes(proto):
    """Removes notes, stack traces and intermediate shapes."""
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    graph = proto.graph
    graph.ClearField("doc_string")
    for field in (graph.value_info, graph.metadata_props, graph.quantization_annotation):
        del field[:]
    for part in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("doc_string")
        del part.metadata_props[:]
    return proto


def keras_export(model, opset, channels_first=False):
    """Returns the ONNX model that tf2onnx writes for a Keras model, for any batch size."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="input")]
    # Without training=False, Keras reads its learning phase at run time.
    function = tf.function(lambda image: model(image, training=False), signature)
    proto, _ = tf2onnx.convert.from_function(
        function, signature, opset=opset, inputs_as_nchw=["input"] if channels_first else None
    )
    return proto


def load_export_script():
    """Loads onnx/export.py as a module; importing it by folder would hide the package onnx."""
    path = SMALL.parents[2] / "onnx" / "export.py"
    spec = importlib.util.spec_from_file_location("rgby_export", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shorten(proto):
    """Removes notes and node names, and shortens intermediate names, for small files."""
    graph = strip_notes(proto).graph
    fixed = {value.name for value in [*graph.input, *graph.output, *graph.initializer]}
    # The output of an Identity is a weight that equals another one, and has its name.
    fixed.update(node.output[0] for node in graph.node if node.op_type == "Identity")
    names = {name: name for name in ["", *fixed]}
    for index, tensor in enumerate(graph.initializer):
        # Long names of tf2onnx contain its optimization passes.
        if len(tensor.name) > 40:
            short = f"w{index}"
            names[tensor.name], tensor.name = short, short
    for node in graph.node:
        node.ClearField("name")
        for field in (node.input, node.output):
            field[:] = [names.setdefault(name, f"t{len(names)}") for name in field]
    return proto


def parse_folder(description):
    """Returns the folder of --all, or None."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--all", type=pathlib.Path, metavar="DIR",
                        help="write every variant to this folder, not only the kept ones to small/")
    folder = parser.parse_args().all
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_and_write(proto, name, kept, folder=None, **save):
    """Checks the features of `proto`, then writes it to `folder`, or to small/ if it is kept."""
    expected = json.loads((SMALL / "expected.json").read_text())["features"]
    onnx.checker.check_model(proto, full_check=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, f"{name}.onnx")
        onnx.save(proto, path, **save)
        difference = relative_difference(pooled_features(path, image_batch(SHAPE)), expected)
        print(f"{name}: {difference:.1e}{', kept' if kept else ''}")
        if not difference <= (FP16_TOLERANCE if name.endswith("-fp16") else TOLERANCE):
            sys.exit(f"{name}: features differ by {difference:.1e} of the largest")
        if kept or folder:
            # The file and its external data.
            for part in os.listdir(scratch):
                shutil.copyfile(os.path.join(scratch, part), (folder or SMALL) / part)
