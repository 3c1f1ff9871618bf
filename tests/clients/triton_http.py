"""Tests a running `rgby serve` with the tests' tiny model through NVIDIA's client for Triton.

    python3 triton_http.py 127.0.0.1:8000

Needs `pip install tritonclient[http]`. Exits with 0 if all checks pass.
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

SIDE = 8


def image(grays):
    """Returns normalized images with one gray value in each channel."""
    values = (np.array(grays, np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(np.broadcast_to(values[:, :, None, None], (*values.shape, SIDE, SIDE)))


def expected(grays):
    """Returns the probabilities of the tiny model for them."""
    means = (np.array(grays, np.float32) / 255 - 0.5) / 0.5
    return np.tile(1 / (1 + np.exp(-means)), (1, 7))


def tensor(name, array, binary):
    given = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def refused(call, wanted):
    try:
        call()
    except InferenceServerException as error:
        assert wanted in str(error), f"no {wanted!r} in {error}"
        return
    raise AssertionError(f"was not refused; expected {wanted!r}")


def check_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("rgby") and client.is_model_ready("rgby", "1")
    assert not client.is_model_ready("other") and not client.is_model_ready("rgby", "2")
    server = client.get_server_metadata()
    assert server["name"] == "rgby" and "binary_tensor_data" in server["extensions"], server
    model = client.get_model_metadata("rgby")
    assert model["versions"] == ["1"], model
    assert model["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, 4, SIDE, SIDE]}
    assert model["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 28]}


def check_inference(client):
    grays = [[0, 60, 120, 255], [1, 2, 3, 4], [255, 255, 0, 0]]
    planes = np.repeat(np.array(grays, np.uint8), 9).reshape(3, 4, 3, 3)
    inputs = [("image", image(grays)), ("planes", planes), ("planes", planes.astype(np.uint16) * 257)]
    for name, array in inputs:
        for binary_in in (True, False):
            for outputs in (
                None,
                [triton.InferRequestedOutput("probabilities", binary_data=True)],
                [triton.InferRequestedOutput("probabilities", binary_data=False)],
            ):
                given = [tensor(name, array, binary_in)]
                result = client.infer("rgby", given, outputs=outputs, request_id="42")
                found = result.as_numpy("probabilities")
                assert found.dtype == np.float32 and found.shape == (3, 28), found
                assert np.abs(found - expected(grays)).max() < 1e-5, name
                response = result.get_response()
                assert (response["id"], response["model_version"]) == ("42", "1"), response
    given = [tensor("image", image(grays), True)]
    for compression in ("gzip", "deflate"):
        result = client.infer("rgby", given, model_version="1", request_compression_algorithm=compression)
        assert np.abs(result.as_numpy("probabilities") - expected(grays)).max() < 1e-5
    client.infer("rgby", given, timeout=60_000_000, priority=1)
    pending = [client.async_infer("rgby", given) for _ in range(20)]
    for result in pending:
        assert result.get_result().as_numpy("probabilities").shape == (3, 28)


def check_errors(client):
    good = image([[0, 0, 0, 0]])
    refused(lambda: client.infer("other", [tensor("image", good, True)]), "unknown model")
    refused(lambda: client.infer("rgby", [tensor("image", good, True)], model_version="9"), "unknown version")
    refused(lambda: client.infer("rgby", [tensor("pixels", good, True)]), "unknown input")
    refused(lambda: client.infer("rgby", [tensor("image", good[:, :3].copy(), True)]), "must be [n, 4")
    refused(lambda: client.infer("rgby", [tensor("image", good.astype(np.float64), True)]), "FP32")
    refused(lambda: client.infer("rgby", [tensor("image", good * np.nan, True)]), "finite")
    outputs = [triton.InferRequestedOutput("logits")]
    refused(lambda: client.infer("rgby", [tensor("image", good, True)], outputs=outputs), "unknown output")
    refused(lambda: client.get_model_metadata("other"), "unknown model")
    refused(lambda: client.load_model("other"), "unknown model")


def check_repository(client):
    assert client.get_model_repository_index() == [
        {"name": "rgby", "version": "1", "state": "READY", "reason": ""}
    ]
    client.unload_model("rgby")
    assert not client.is_model_ready("rgby")
    client.load_model("rgby")
    assert client.is_model_ready("rgby")


def main():
    client = triton.InferenceServerClient(sys.argv[1], concurrency=4)
    for check in (check_metadata, check_inference, check_errors, check_repository):
        check(client)
        print(f"{check.__name__}: ok")
    client.close()


if __name__ == "__main__":
    main()
