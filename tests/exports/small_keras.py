"""Writes the network of `small_torch.py`, rebuilt in Keras, with tf2onnx.

The script reads the weights from `small/legacy-kept-opset17.onnx`, which `small.py` writes, and
builds the layers like keras.applications: ZeroPadding2D before a strided convolution or maximum,
'same' elsewhere; a bias before BatchNorm in the ResNet part; BatchNorm without scale in the
inception part; dense layers that join two maps at a time. The network computes the same function.

    python small_keras.py [--all DIR]

Seed: that of `small_torch.py`. Generated with tensorflow-cpu 2.21.0, keras 3.15.1, tf2onnx 1.17.0,
onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6 on Python 3.11.
"""

import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

import common

SIZE = common.SHAPE[2]
# The epsilon of ResNet and DenseNet in keras.applications; torch has 1e-5.
KERAS_EPS = 1.001e-5


class ScaledSum(layers.Layer):
    """x + scale·y, the last layer of a block in keras.applications.InceptionResNetV2."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, inputs):
        return inputs[0] + inputs[1] * self.scale


class Builder:
    """Builds Keras layers from torch's weights."""

    def __init__(self, weights):
        self.weights = weights
        self.pending = []

    def conv(self, x, name, bias=None, **options):
        """Adds a convolution; `bias` overrides the bias in the weights."""
        kernel = self.weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        bias = self.weights.get(f"{name}.bias") if bias is None else bias
        layer = layers.Conv2D(
            kernel.shape[3], kernel.shape[:2], use_bias=bias is not None, **options
        )
        self.pending.append((layer, [kernel] if bias is None else [kernel, bias]))
        return layer(x)

    def norm(self, x, name, inception=False, shift=0.0):
        """Adds a BatchNorm whose input is torch's plus `shift`."""
        scale, bias, mean, var = (
            self.weights[f"{name}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        eps = 1e-3 if inception else KERAS_EPS
        layer = layers.BatchNormalization(epsilon=eps, scale=not inception)
        # torch has 1e-5 outside the inception part.
        values = [bias, mean + shift, var if inception else var + numpy.float32(1e-5 - eps)]
        self.pending.append((layer, values if inception else [scale, *values]))
        return layer(x)

    def unit(self, x, name, relu=True, **options):
        """Adds a convolution with a bias, BatchNorm and ReLU, as in ResNet50."""
        count = len(self.weights[f"{name}.bn.bias"])
        bias = numpy.linspace(-0.5, 0.5, count, dtype=numpy.float32)
        x = self.conv(x, f"{name}.conv", bias, **options)
        x = self.norm(x, f"{name}.bn", shift=bias)
        return layers.Activation("relu")(x) if relu else x

    def inception_units(self, x, *names, padding="same", **options):
        """Adds convolutions, each with BatchNorm without scale and ReLU."""
        for name in names:
            x = self.conv(x, f"{name}.conv", padding=padding, **options)
            x = layers.Activation("relu")(self.norm(x, f"{name}.bn", inception=True))
        return x

    def norm_relu_conv(self, x, norm, conv, **options):
        """Adds BatchNorm, ReLU and a convolution, the order of a dense layer."""
        return self.conv(layers.Activation("relu")(self.norm(x, norm)), conv, **options)

    def fill(self):
        """Sets the weights of the layers, which have none before the network is built."""
        for layer, values in self.pending:
            layer.set_weights(values)


def inception_block(build, x):
    """Adds a block of four branches."""
    pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    return layers.Concatenate()([
        build.inception_units(x, "inception.a"),
        build.inception_units(x, "inception.b.0", "inception.b.1"),
        build.inception_units(x, "inception.c.0", "inception.c.1", "inception.c.2"),
        build.inception_units(pool, "inception.d.1"),
    ])


def residual_blocks(build, x):
    """Adds one block with a scale and a ReLU, and one without."""
    def branch(block, index, *parts):
        return build.inception_units(x, *(f"{block}.branches.{index}{part}" for part in parts))

    y = [branch("res1", 0, ""), branch("res1", 1, ".0", ".1"), branch("res1", 2, ".0", ".1")]
    y = build.conv(layers.Concatenate()(y), "res1.up", padding="same")
    x = layers.Activation("relu")(ScaledSum(0.17)([x, y]))
    y = [branch("res2", 0, ""), branch("res2", 1, ".0", ".1", ".2")]
    y = build.conv(layers.Concatenate()(y), "res2.up", padding="same")
    return ScaledSum(1.0)([x, y])


def dense_part(build, x):
    """Adds two dense layers and the transition."""
    for index in range(2):
        y = build.norm_relu_conv(x, f"dense.{index}.bn1", f"dense.{index}.conv1")
        y = build.norm_relu_conv(
            y, f"dense.{index}.bn2", f"dense.{index}.conv2", padding="same"
        )
        x = layers.Concatenate()([x, y])
    return layers.AveragePooling2D(2, strides=2)(build.norm_relu_conv(x, "bn3", "conv3"))


def make(weights, size, top):
    """Returns the network for images of `size` (None: any), with or without its classifier."""
    build = Builder(weights)
    image = layers.Input((size, size, 3))
    x = layers.ZeroPadding2D(3)(image)
    x = layers.ZeroPadding2D(1)(build.unit(x, "stem", strides=2))
    x = layers.MaxPooling2D(3, strides=2)(x)
    short = build.unit(x, "bottleneck.short", relu=False, strides=2)
    x = build.unit(x, "bottleneck.a", strides=2)
    x = build.unit(x, "bottleneck.b", padding="same")
    x = build.unit(x, "bottleneck.c", relu=False)
    x = layers.Activation("relu")(layers.Add()([short, x]))
    x = residual_blocks(build, inception_block(build, x))
    y = build.inception_units(x, "reduction.a", padding="valid", strides=2)
    x = dense_part(build, layers.Concatenate()([y, layers.MaxPooling2D(3, strides=2)(x)]))
    x = layers.Activation("relu")(build.norm(x, "bn4"))
    if top:
        layer = layers.Dense(len(weights["fc.bias"]), activation="softmax")
        build.pending.append((layer, [weights["fc.weight"].T, weights["fc.bias"]]))
        x = layer(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    build.fill()
    return model


def torch_weights():
    """Returns torch's weights by name; the exporter stores equal weights only once."""
    graph = onnx.load(common.SMALL / "legacy-kept-opset17.onnx").graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity":
            weights[node.output[0]] = weights[node.input[0]]
    return weights


def variants(weights):
    """Yields name, whether it is kept, and the ONNX model of each file."""
    fixed, flexible, bare = (
        make(weights, size, top) for size, top in [(SIZE, True), (None, True), (None, False)]
    )
    for model, extra, channels_first, opsets, kept in [
        (fixed, "", False, (11, 13, 17, 18), (13,)),
        (fixed, "-nchw", True, (11, 13, 17, 18), (18,)),
        (flexible, "-dynamic", False, (11, 13, 17, 18), (17,)),
        (bare, "-dynamic-notop", False, (11, 17), (11,)),
    ]:
        for opset in opsets:
            proto = common.keras_export(model, opset, channels_first)
            yield f"tf2onnx-folded-opset{opset}{extra}", opset in kept, proto


def main():
    """Checks and writes every variant."""
    logging.disable(logging.INFO)
    print(f"tensorflow {tf.__version__}, keras {keras.__version__}, tf2onnx {tf2onnx.__version__}")
    folder = common.parse_folder(__doc__)
    for name, kept, proto in variants(torch_weights()):
        common.check_and_write(common.shorten(proto), name, kept, folder)


if __name__ == "__main__":
    main()
