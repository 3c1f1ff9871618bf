"""Writes seeds for the fuzz target `infer`.

    python fuzz/infer_seeds.py fuzz/corpus/infer
"""

import json
import struct
import sys
from pathlib import Path


def field(number, data):
    """Returns a length-delimited field of protobuf."""
    return bytes([number << 3 | 2, len(data)]) + data


def message(name, datatype, shape, contents=b"", raw=None, outputs=(), timeout=False):
    tensor = field(1, name) + field(2, datatype) + field(3, bytes(shape)) + contents
    parameter = field(1, b"timeout") + field(2, bytes([2 << 3, 100]))
    return (
        b"g"
        + field(1, b"rgby")
        + field(3, b"id")
        + (field(4, parameter) if timeout else b"")
        + field(5, tensor)
        + b"".join(field(6, field(1, output)) for output in outputs)
        + (b"" if raw is None else field(7, raw))
    )


def body(name, datatype, shape, data=None, behind=b""):
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    if data is None:
        tensor["parameters"] = {"binary_data_size": len(behind)}
    else:
        tensor["data"] = data
    request = {"id": "x", "parameters": {"timeout": 1000}, "inputs": [tensor], "outputs": [{"name": "embeddings"}]}
    text = json.dumps(request).encode()
    return (b"j" if data else b"b" + struct.pack(">H", len(text))) + text + behind


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    floats, wide = struct.pack("<8f", *range(8)), struct.pack("<6H", *range(6))
    seeds = {
        "grpc-image": message(b"image", b"FP32", [1, 2, 2, 2], raw=floats, outputs=[b"probabilities", b"embeddings"]),
        "grpc-planes": message(b"planes", b"UINT16", [1, 2, 3, 1], raw=wide, timeout=True),
        "grpc-floats": message(b"image", b"FP32", [1, 2, 2, 2], field(5, field(6, floats))),
        "grpc-whole": message(b"planes", b"UINT8", [2, 1, 2], field(5, field(4, bytes([0, 1, 2, 127])))),
        "json-image": body("image", "FP32", [1, 2, 2, 2], [[0.5, -1, 2, 3], [1e-3, 0, 0, 0]]),
        "json-planes": body("planes", "UINT8", [2, 1, 3], [0, 255, 3, 4, 5, 6]),
        "binary-image": body("image", "FP32", [1, 2, 2, 2], behind=floats),
        "binary-planes": body("planes", "UINT16", [1, 2, 3, 1], behind=wide),
    }
    for name, seed in seeds.items():
        (folder / name).write_bytes(seed)


if __name__ == "__main__":
    main()
