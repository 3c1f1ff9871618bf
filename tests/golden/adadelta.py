#!/usr/bin/env python3
"""Writes reference runs of Adadelta (PyTorch, Keras 2.0.8) and Adam: adadelta.json, adam.json.

Twelve parameters get 100 gradients each, which span 1e-3 to 1e1 and include zeros. The files
contain the gradients and the parameters after every step. Fields named float64, the initial values
and the gradients are doubles. Initial values and gradients are exact in float32 as well. Fields
named float32 are the shortest decimals that parse to the same float32.

    pip install torch numpy && python adadelta.py
"""

import json
import pathlib
import platform

import numpy
import torch

SEED = 20180
STEPS = 100
PARAMETERS = 12
HERE = pathlib.Path(__file__).resolve().parent


def problem():
    """Returns initial parameters [12] and gradients [100, 12], float64 values exact in float32."""
    rng = numpy.random.default_rng(SEED)
    # Away from zero, so that relative differences are meaningful. Just below a power of two, where
    # the relative rounding error of float32 is smallest.
    initial = rng.uniform(0.4, 0.49, PARAMETERS) * rng.choice([-1.0, 1.0], PARAMETERS)
    scale = 10.0 ** rng.uniform(-3.0, 1.0, (STEPS, PARAMETERS))
    # The first half of the parameters have a constant scale; the others change it at every step.
    scale[:, : PARAMETERS // 2] = 10.0 ** numpy.linspace(-3.0, 1.0, PARAMETERS // 2)
    gradients = rng.uniform(0.1, 1.0, scale.shape) * rng.choice([-1.0, 1.0], scale.shape) * scale
    gradients[rng.random(scale.shape) < 0.02] = 0.0
    gradients[:3, -1] = 0.0
    return [values.astype(numpy.float32).astype(numpy.float64) for values in (initial, gradients)]


def run_torch(make_optimizer, initial, gradients, dtype):
    """Returns the parameters [100, 12] after each step of a PyTorch optimizer."""
    parameter = torch.nn.Parameter(torch.tensor(initial, dtype=dtype))
    optimizer = make_optimizer([parameter])
    trace = []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        trace.append(parameter.detach().clone().numpy())
    return numpy.stack(trace)


def run_keras_2_0_8(initial, gradients, lr, rho, eps):
    """Returns the parameters [100, 12] after each step of Keras 2.0.8's `optimizers.Adadelta`."""
    parameter, a, d_a = initial.copy(), numpy.zeros(PARAMETERS), numpy.zeros(PARAMETERS)
    trace = []
    for g in gradients:
        a = rho * a + (1.0 - rho) * g**2
        update = g * numpy.sqrt(d_a + eps) / numpy.sqrt(a + eps)
        parameter = parameter - lr * update
        d_a = rho * d_a + (1.0 - rho) * update**2
        trace.append(parameter)
    return numpy.stack(trace)


def write(name, about, arrays):
    """Writes `about`, then each array with one row per line, to the file `name`.

    `str` prints the shortest decimal that parses to the same value of its type.
    """
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    for key, array in arrays.items():
        rows = ["[" + ", ".join(map(str, row)) + "]" for row in numpy.atleast_2d(array)]
        text = rows[0] if array.ndim == 1 else "[\n" + ",\n".join(rows) + "\n]"
        fields.append(f"{json.dumps(key)}: {text}")
    (HERE / name).write_text("{\n" + ",\n".join(fields) + "\n}\n")


def main():
    """Writes both files and prints how far float32 differs from float64."""
    initial, gradients = problem()
    about = {
        "generator": "tests/golden/adadelta.py",
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__.split("+")[0],
        },
        "seed": SEED,
    }
    given = {"initial": initial, "gradients": gradients}

    pytorch = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
    keras = {"lr": 1.0, "rho": 0.95, "eps": 1e-8}
    adadelta = {
        f"pytorch_{name}": run_torch(
            lambda p: torch.optim.Adadelta(p, **pytorch), initial, gradients, dtype
        )
        for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
    }
    adadelta["keras_2_0_8_float64"] = run_keras_2_0_8(initial, gradients, **keras)
    write("adadelta.json", about | {"pytorch": pytorch, "keras_2_0_8": keras}, given | adadelta)

    settings = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8}
    adam = {
        f"pytorch_{name}": run_torch(
            lambda p: torch.optim.Adam(p, **settings), initial, gradients, dtype
        )
        for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
    }
    write("adam.json", about | {"pytorch": settings}, given | adam)

    for name, runs in (("adadelta", adadelta), ("adam", adam)):
        exact = runs["pytorch_float64"]
        strays = numpy.abs(runs["pytorch_float32"] / exact - 1.0).max()
        print(f"{name}: float32 differs by {strays:.1e} of the value, parameters move by at most",
              f"{numpy.abs(exact - initial).max():.3g}, smallest {numpy.abs(exact).min():.3g}")


if __name__ == "__main__":
    main()
