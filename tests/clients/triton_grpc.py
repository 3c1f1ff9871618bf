"""Tests a running `rgby serve` with the tests' tiny model through NVIDIA's gRPC client for Triton.

    python3 triton_grpc.py all|keys|slow|drain GRPC_ADDRESS [HTTP_ADDRESS]

Each mode needs another server:

- `all`: one with `--max-queue 64 --max-body 1`; its results are compared with those over HTTP
- `keys`: one with the API key 0123456789abcdef
- `slow`: one with a slow model and `--max-queue 1`
- `drain`: one with a slow model, which is stopped while it computes

Needs `pip install tritonclient[grpc,http]`. Exits with 0 if all checks pass.
"""

import re
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.http
from google.protobuf.descriptor import FieldDescriptor
from triton_http import SIDE, expected, image
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as calls
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

GRAYS = [[0, 60, 120, 255], [1, 2, 3, 4], [255, 255, 0, 0]]
KEY = "0123456789abcdef"
PROTOCOL = Path(__file__).parents[2] / "crates/serve/src/grpc/inference.proto"


def tensor(module, name, array):
    given = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array)
    return given


def inputs():
    planes = np.repeat(np.array(GRAYS, np.uint8), 9).reshape(3, 4, 3, 3)
    wide = planes.astype(np.uint16) * 257
    return [("image", image(GRAYS)), ("planes", planes), ("planes", wide), ("planes", planes[0])]


def refused(call, code, wanted):
    try:
        call()
    except InferenceServerException as error:
        found, message = error.status(), error.message()
    except grpc.RpcError as error:
        found, message = str(error.code()), error.details()
    else:
        raise AssertionError(f"was not refused; expected {code}")
    assert found == f"StatusCode.{code}" and wanted in message, f"no {code} {wanted!r}: {found} {message}"


def message(array, name="image", datatype=None, shape=None, raws=None):
    """Builds a request by hand, which may be invalid."""
    request = messages.ModelInferRequest(model_name="rgby")
    given = request.inputs.add()
    given.name = name
    given.datatype = datatype or np_to_triton_dtype(array.dtype)
    given.shape.extend(shape or array.shape)
    request.raw_input_contents.extend([array.tobytes()] if raws is None else raws)
    return request


def check_protocol():
    """Compares our protocol file with that of the client."""
    names = ("bool", "double", "float", "int64", "uint32", "uint64", "string", "bytes")
    kinds = {name: getattr(FieldDescriptor, f"TYPE_{name.upper()}") for name in names}
    scopes, fields = [messages.DESCRIPTOR], 0
    for line in PROTOCOL.read_text().splitlines():
        line = line.split("//")[0].strip()
        if found := re.fullmatch(r"(message|service|oneof) (\w+) \{(\}?)", line):
            kind, name, closed = found.groups()
            scope = scopes[-1]
            if kind == "message":
                scope = getattr(scope, "nested_types_by_name", None) or messages.DESCRIPTOR.message_types_by_name
                scope = scope[name]
            elif kind == "service":
                scope = messages.DESCRIPTOR.services_by_name[name]
            if not closed:
                scopes.append(scope)
        elif line == "}":
            scopes.pop()
        elif found := re.fullmatch(r"rpc (\w+)\((\w+)\) returns \((\w+)\) \{\}", line):
            method = scopes[-1].methods_by_name[found[1]]
            assert (method.input_type.name, method.output_type.name) == found.groups()[1:], line
        elif found := re.fullmatch(r"(repeated )?(\w+|map<.*>) (\w+) = (\d+);", line):
            field = scopes[-1].fields_by_name[found[3]]
            assert field.number == int(found[4]), line
            assert field.is_repeated == bool(found[1] or found[2].startswith("map")), line
            kind = kinds.get(found[2])
            assert field.type == kind if kind else field.message_type.name in (found[2], "ParametersEntry"), line
            fields += 1
    assert len(scopes) == 1 and fields > 50, (scopes, fields)


def check_metadata(client, _http, _stub):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("rgby") and client.is_model_ready("rgby", "1")
    assert not client.is_model_ready("other") and not client.is_model_ready("rgby", "2")
    server = client.get_server_metadata()
    assert server.name == "rgby" and "model_repository" in server.extensions, server
    model = client.get_model_metadata("rgby")
    assert (model.name, list(model.versions), model.platform) == ("rgby", ["1"], "onnx_onnxv1"), model
    first = model.inputs[0]
    assert (first.name, first.datatype, list(first.shape)) == ("image", "FP32", [-1, 4, SIDE, SIDE])
    assert [output.name for output in model.outputs] == ["probabilities", "embeddings"], model
    assert list(model.outputs[0].shape) == [-1, 28], model


def check_inference(client, http, stub):
    for name, array in inputs():
        ours = client.infer("rgby", [tensor(triton, name, array)], request_id="42")
        theirs = http.infer("rgby", [tensor(tritonclient.http, name, array)])
        response = ours.get_response()
        assert (response.id, response.model_name, response.model_version) == ("42", "rgby", "1"), response
        count = len(array) if array.ndim == 4 else 1
        assert ours.as_numpy("embeddings").shape[0] == count
        found = ours.as_numpy("probabilities")
        assert found.dtype == np.float32 and np.abs(found - expected(GRAYS[:count])).max() < 1e-5, name
        for output in ("probabilities", "embeddings"):
            assert ours.as_numpy(output).tobytes() == theirs.as_numpy(output).tobytes(), (name, output)
        by_hand = message(array, name, raws=[])
        contents = by_hand.inputs[0].contents
        field = contents.fp32_contents if name == "image" else contents.uint_contents
        field.extend(array.flatten().tolist())
        typed = stub.ModelInfer(by_hand)
        assert list(typed.raw_output_contents) == list(response.raw_output_contents), name
    given = [tensor(triton, "image", image(GRAYS))]
    outputs = [triton.InferRequestedOutput("embeddings")]
    only = client.infer("rgby", given, outputs=outputs, model_version="1", timeout=60_000_000, priority=1)
    assert only.as_numpy("probabilities") is None and len(only.as_numpy("embeddings")) == 3
    answers = []
    for _ in range(20):
        client.async_infer("rgby", given, lambda result, error: answers.append((result, error)))
    while len(answers) < 20:
        time.sleep(0.01)
    assert all(error is None and result.as_numpy("probabilities").shape == (3, 28) for result, error in answers)


def check_calls(client, _http, stub):
    request = message(image(GRAYS))
    _, call = stub.ModelInfer.with_call(request, metadata=(("x-request-id", "from-the-proxy"),))
    assert ("x-request-id", "from-the-proxy") in call.initial_metadata(), call.initial_metadata()
    _, call = stub.ServerLive.with_call(messages.ServerLiveRequest())
    assert len(dict(call.initial_metadata())["x-request-id"]) == 32
    given = [tensor(triton, "image", image(GRAYS))]
    late = lambda: client.infer("rgby", given, timeout=1)
    refused(late, "DEADLINE_EXCEEDED", "deadline passed before inference finished")
    request.parameters["timeout"].string_param = "soon"
    refused(lambda: stub.ModelInfer(request), "INVALID_ARGUMENT", "microseconds")
    refused(client.get_inference_statistics, "UNIMPLEMENTED", "the methods are ServerLive, ")
    refused(lambda: client.get_model_config("rgby"), "UNIMPLEMENTED", "the methods are ServerLive, ")
    compressed = lambda: client.infer("rgby", given, compression_algorithm="gzip")
    refused(compressed, "UNIMPLEMENTED", "gzip")


def check_errors(client, _http, stub):
    good = image([[0, 0, 0, 0]])
    infer = lambda name, array, **more: client.infer("rgby", [tensor(triton, name, array)], **more)
    bad = "INVALID_ARGUMENT"
    refused(lambda: client.infer("other", [tensor(triton, "image", good)]), "NOT_FOUND", "unknown model")
    refused(lambda: infer("image", good, model_version="9"), "NOT_FOUND", "unknown version")
    refused(lambda: infer("pixels", good), bad, "unknown input")
    refused(lambda: infer("image", good[:, :3].copy()), bad, "must be [n, 4")
    refused(lambda: infer("image", good[0].copy()), bad, "must be [n, 4")
    refused(lambda: infer("image", good.astype(np.float64)), bad, "FP32")
    refused(lambda: infer("image", good * np.nan), bad, "finite")
    refused(lambda: infer("planes", good.astype(np.uint8)[:, :3].copy()), bad, "red, green")
    refused(lambda: infer("image", np.repeat(good, 65, 0)), bad, "larger than the queue")
    refused(lambda: infer("image", np.repeat(good, 1100, 0)), "RESOURCE_EXHAUSTED", "--max-body")
    refused(lambda: infer("image", good, outputs=[triton.InferRequestedOutput("logits")]), bad, "unknown output")
    classes = [triton.InferRequestedOutput("probabilities", class_count=3)]
    refused(lambda: infer("image", good, outputs=classes), bad, "classification")
    refused(lambda: client.get_model_metadata("other"), "NOT_FOUND", "unknown model")
    refused(lambda: client.load_model("other"), "NOT_FOUND", "unknown model")
    refused(lambda: client.load_model("rgby", config="{}"), bad, "without parameters")
    half = good.tobytes()[: good.nbytes // 2]
    for raws, wanted in (
        ([half], "512 bytes were sent"),
        ([], "neither"),
        ([b""], "0 bytes were sent"),
        ([half, half], "has 2"),
    ):
        refused(lambda: stub.ModelInfer(message(good, raws=raws)), bad, wanted)
    for shape in ([-1, 4, SIDE, SIDE], [2**62, 4, SIDE, SIDE], [2, 4, SIDE, SIDE]):
        wanted = "negative" if shape[0] < 0 else "shape"
        refused(lambda: stub.ModelInfer(message(good, shape=shape)), bad, wanted)


def check_bytes(channel):
    """Sends bytes that are no valid message."""
    def send(data, method="ModelInfer"):
        path = f"/inference.GRPCInferenceService/{method}"
        channel.unary_unary(path, bytes, bytes)(data, timeout=60)

    for data in (b"\xff" * 100, b"\x0a\x05abc", b"\x08\x01", b"\x0b" * 1000):
        refused(lambda: send(data), "INVALID_ARGUMENT", "malformed")
    refused(lambda: send(b"\x2a\x00" * 5000), "INVALID_ARGUMENT", "1000 fields")
    refused(lambda: send(b""), "NOT_FOUND", "unknown model")
    refused(lambda: send(b"", "Nothing"), "UNIMPLEMENTED", "unknown method")


def check_repository(client, _http, _stub):
    index = client.get_model_repository_index()
    listed = [(model.name, model.version, model.state, model.reason) for model in index.models]
    assert listed == [("rgby", "1", "READY", "")], index
    client.unload_model("rgby")
    assert not client.is_model_ready("rgby")
    refused(lambda: client.unload_model("rgby"), "NOT_FOUND", "unknown model")
    client.load_model("rgby")
    assert client.is_model_ready("rgby")


def check_keys(client, _http, stub):
    assert client.is_server_live() and client.is_server_ready()
    request = message(image(GRAYS))
    wrong = ((), (("authorization", "Bearer another-key-of-16"),), (("x-api-key", ""),))
    for metadata in wrong:
        infer = lambda: stub.ModelInfer(request, metadata=metadata)
        refused(infer, "UNAUTHENTICATED", "API key")
        refused(lambda: stub.ServerMetadata(messages.ServerMetadataRequest(), metadata=metadata), "UNAUTHENTICATED", "")
    for metadata in ((("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)):
        stub.ModelInfer(request, metadata=metadata)


def slow(stub, count, **more):
    """Starts a slow request of `count` images."""
    request = message(np.zeros((count, 4, 2, 2), np.uint8), "planes")
    return stub.ModelInfer.future(request, **more)


def check_deadline(_client, _http, stub):
    # With `timeout` the client would measure the time itself, and not wait for the server.
    late = slow(stub, 1, metadata=(("grpc-timeout", "5m"),))
    refused(late.result, "DEADLINE_EXCEEDED", "deadline passed before inference finished")


def check_full(_client, _http, stub):
    pending = [slow(stub, 1) for _ in range(8)]
    codes = [call.code() for call in pending]
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert set(codes) == {grpc.StatusCode.OK, full}, codes
    call = pending[codes.index(full)]
    assert "the queue is full" in call.details(), call.details()
    pushback = dict(call.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) >= 1000, pushback


def check_drain(_client, _http, stub):
    pending = slow(stub, 16)
    # The test reads this line and stops the server.
    print("sent", flush=True)
    sys.stdin.readline()
    refused(slow(stub, 1).result, "UNAVAILABLE", "shutting down")
    assert not pending.done(), "the model was not slow enough"
    assert len(pending.result().raw_output_contents[0]) == 16 * 28 * 4


def main():
    mode, address = sys.argv[1:3]
    http = tritonclient.http.InferenceServerClient(sys.argv[3]) if mode == "all" else None
    checks = {
        "all": (check_metadata, check_inference, check_calls, check_errors, check_repository),
        "keys": (check_keys,),
        "slow": (check_deadline, check_full),
        "drain": (check_drain,),
    }[mode]
    with grpc.insecure_channel(address) as channel, triton.InferenceServerClient(address) as client:
        stub = calls.GRPCInferenceServiceStub(channel)
        for check in checks:
            check(client, http, stub)
            print(f"{check.__name__}: ok")
        if mode == "all":
            check_bytes(channel)
            check_protocol()
            print("check_bytes, check_protocol: ok")


if __name__ == "__main__":
    main()
