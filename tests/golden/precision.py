#!/usr/bin/env python3
"""Measures how far float16 and int8 files of other tools differ from float32: precision.json.

The network is tests/exports/small/legacy-kept-opset17.onnx, which has every structure of the real
networks. `images` computes 24 images [3, 64, 64]; the first 16 are used for calibration, all for
the comparison. float16 is onnxconverter-common's `convert_float_to_float16` with float32 inputs and
outputs. int8 is ONNX Runtime's `quantize_static` (QDQ, uint8 activations, int8 weights per channel,
minimum and maximum). ONNX Runtime runs both.

`largest` and `mean` refer to the absolute differences of the outputs, relative to the largest
output in float32.

    pip install numpy onnx onnxruntime onnxconverter-common && python precision.py
"""

import importlib.metadata
import json
import pathlib
import platform
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnxconverter_common import float16
from onnxruntime import quantization

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent / "exports" / "small" / "legacy-kept-opset17.onnx"
COUNT, CALIBRATION, SHAPE = 24, 16, (3, 64, 64)


def images():
    """Returns pseudorandom images with a different brightness and contrast for each."""
    i = np.arange(COUNT * np.prod(SHAPE), dtype=np.int64)
    noise = (i * 7919 % 10007 / 5003.0 - 1.0).reshape(COUNT, *SHAPE)
    n = np.arange(COUNT).reshape(-1, 1, 1, 1)
    return (noise * (0.3 + 0.02 * n) + 0.4 * np.sin(n)).astype(np.float32)


class Reader(quantization.CalibrationDataReader):
    def __init__(self, name, batch):
        self.batches = iter([{name: image[None]} for image in batch])

    def get_next(self):
        return next(self.batches, None)


def run(model, batch):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def change(outputs, expected):
    gaps = np.abs(outputs - expected) / np.abs(expected).max()
    return {"largest": float(gaps.max()), "mean": float(gaps.mean())}


def main():
    batch = images()
    model = onnx.load(MODEL)
    expected = run(model, batch)
    half = float16.convert_float_to_float16(onnx.load(MODEL), keep_io_types=True)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = (f"{folder}/{name}.onnx" for name in ("prepared", "quantized"))
        quantization.quant_pre_process(str(MODEL), prepared)
        quantization.quantize_static(
            prepared,
            quantized,
            Reader(model.graph.input[0].name, batch[:CALIBRATION]),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        integers = onnx.load(quantized)
    packages = ("numpy", "onnx", "onnxruntime", "onnxconverter-common")
    versions = {name: importlib.metadata.version(name) for name in packages}
    golden = {
        "about": {"script": "precision.py", "python": platform.python_version(), **versions},
        "outputs": [float(x) for x in expected.flatten()[:5]],
        "float16": change(run(half, batch), expected),
        "int8": change(run(integers, batch), expected),
    }
    (HERE / "precision.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
