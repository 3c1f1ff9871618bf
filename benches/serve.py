"""Compares `rgby serve` with a Python server: onnxruntime behind FastAPI.

    pip install onnxruntime numpy onnx fastapi uvicorn[standard] orjson
    python3 benches/serve.py cost  --rgby target/release/rgby
    python3 benches/serve.py batch --rgby target/release/rgby --model model.onnx
    python3 benches/serve.py fastapi --model model.onnx --port 8001   (started by `cost`)

`cost` serves a model with almost no work, so that it measures the server. It prints the latency of
one client and of many, with binary tensors, and again with a trace of each request to a collector
that discards it. `batch` compares many clients that send one image each with a bare session at its
best batch size. Clients run in separate processes and keep their connections open.
"""

import argparse
import asyncio
import http.client
import http.server
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

SIDE = 32


def save_model(path, nodes, weights=()):
    """Writes a model of `nodes`, from `image` to `probabilities`, with the metadata of rgby."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "bench",
        [value("image", TensorProto.FLOAT, ["N", 4, SIDE, SIDE])],
        [value("probabilities", TensorProto.FLOAT, ["N", 28])], weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = {
        "arch": "bench", "classes": [f"class {k}" for k in range(28)], "thresholds": [0.5] * 28,
        "preprocess": {"channels": ["red", "green", "blue", "yellow"], "size": SIDE,
                       "resize": "bilinear", "mean": [0.5] * 4, "std": [0.5] * 4},
        "provenance": {"rgby_version": "0", "source": None, "source_sha256": None, "steps": 0},
    }
    helper.set_model_props(model, {"rgby": json.dumps(spec)})
    onnx.save(model, path)


def noop_model(path):
    """Writes a model of almost no work: the mean of each channel, seven times for 28 classes."""
    from onnx import helper

    save_model(path, [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Concat", ["flat"] * 7, ["all"], axis=1),
        helper.make_node("Sigmoid", ["all"], ["probabilities"]),
    ])


def input_shape(path):
    import onnx

    model = onnx.load(path, load_external_data=False)
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]


def session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fastapi_app(path, max_batch, max_delay):
    """Returns an efficient FastAPI server: raw bytes, a batching task, inference in a thread."""
    from contextlib import asynccontextmanager

    from fastapi import FastAPI, Request, Response

    shape = input_shape(path)
    model = session(path, os.cpu_count())
    queue = asyncio.Queue()

    async def work():
        loop = asyncio.get_running_loop()
        while True:
            jobs = [await queue.get()]
            until = loop.time() + max_delay
            while len(jobs) < max_batch:
                try:
                    jobs.append(queue.get_nowait())
                except asyncio.QueueEmpty:
                    left = until - loop.time()
                    if left <= 0:
                        break
                    try:
                        jobs.append(await asyncio.wait_for(queue.get(), left))
                    except asyncio.TimeoutError:
                        break
            images = np.concatenate([image for image, _ in jobs])
            answer = await loop.run_in_executor(None, lambda: model.run(None, {"image": images})[0])
            for row, (_, future) in zip(answer, jobs):
                if not future.done():
                    future.set_result(row)

    @asynccontextmanager
    async def lifespan(_):
        task = asyncio.create_task(work())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/infer")
    async def infer(request: Request):
        image = np.frombuffer(await request.body(), np.float32).reshape(1, *shape)
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((image, future))
        return Response((await future).tobytes(), media_type="application/octet-stream")

    return app


def serve_fastapi(args):
    import uvicorn

    app = fastapi_app(args.model, args.max_batch, args.max_delay)
    uvicorn.run(app, host="127.0.0.1", port=args.port, access_log=False, log_level="warning")


class RgbyServer:
    def __init__(self, rgby, model, *args):
        command = [rgby, "serve", "--model", model, "--addr", "127.0.0.1:0", "--quiet", *args]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("ready: "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        raise SystemExit("rgby did not start")

    def request(self, values):
        head = json.dumps({
            "inputs": [{"name": "image", "datatype": "FP32", "shape": list(values.shape),
                        "parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return "/v2/models/rgby/infer", head + values.tobytes(), headers

    def stop(self):
        self.process.terminate()
        self.process.wait()


class FastApiServer:
    def __init__(self, model, port, max_delay):
        command = [sys.executable, __file__, "fastapi", "--model", model, "--port", str(port),
                   "--max-delay", str(max_delay)]
        self.process = subprocess.Popen(command)
        self.port = port
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/")
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("FastAPI did not start")

    def request(self, values):
        return "/infer", values.tobytes(), {}

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def client(port, request, until, times):
    path, body, headers = request
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    message = head.encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        start = time.perf_counter()
        writer.write(message)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer[:20]:
            raise SystemExit(answer.decode())
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        times.append(time.perf_counter() - start)
    writer.close()


def clients(port, request, count, seconds, results):
    async def run():
        times = []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(port, request, until, times) for _ in range(count)))
        return times

    results.put(asyncio.run(run()))


def load(server, values, count, seconds, processes=1):
    """Returns the latencies in seconds of `count` clients that each send one request at a time."""
    results = multiprocessing.Queue()
    request = server.request(values)
    shares = [count // processes + (i < count % processes) for i in range(processes)]
    workers = [
        multiprocessing.Process(target=clients, args=(server.port, request, share, seconds, results))
        for share in shares if share
    ]
    for worker in workers:
        worker.start()
    times = sum((results.get() for _ in workers), [])
    for worker in workers:
        worker.join()
    return sorted(times)


def summary(name, times, seconds):
    at = lambda share: times[min(int(len(times) * share), len(times) - 1)] * 1e3
    line = {"requests_per_s": len(times) / seconds, "mean_ms": statistics.mean(times) * 1e3,
            "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99)}
    print(f"{name:34}" + "".join(f" {key} {value:9.2f}" for key, value in line.items()), flush=True)
    return line


class Collector(http.server.BaseHTTPRequestHandler):
    """A trace collector that discards all traces."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def collect(port):
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Collector).serve_forever()


def cost(args):
    collector = multiprocessing.Process(target=collect, args=[args.port + 1], daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{args.port + 1}"
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.onnx")
        noop_model(model)
        values = np.zeros((1, 4, SIDE, SIDE), np.float32)
        found = {}
        delay = str(args.max_delay_ms) + "ms"
        servers = {
            "rgby": lambda: RgbyServer(args.rgby, model, "--max-delay", delay),
            "rgby, traced": lambda: RgbyServer(
                args.rgby, model, "--max-delay", delay, "--otlp-endpoint", endpoint),
            "FastAPI + onnxruntime": lambda: FastApiServer(model, args.port, 0.0),
            f"FastAPI, waits {delay}": lambda: FastApiServer(model, args.port, args.max_delay_ms / 1e3),
        }
        for name, start in servers.items():
            server = start()
            load(server, values, 4, 1)
            for count in (1, args.clients):
                times = load(server, values, count, args.seconds)
                found[name, count] = summary(f"{name}, {count} clients", times, args.seconds)
            server.stop()
        for count in (1, args.clients):
            ours = found["rgby", count]["requests_per_s"]
            theirs = max(f["requests_per_s"] for (name, c), f in found.items() if "FastAPI" in name and c == count)
            traced = found["rgby, traced", count]["requests_per_s"]
            print(f"requests/s at {count} clients: {ours / theirs:.2f} of the faster FastAPI; "
                  f"traced {traced / ours:.2f} of untraced")
    collector.terminate()


def batch(args):
    values = np.zeros((1, *input_shape(args.model)), np.float32)
    model = session(args.model, os.cpu_count())
    best = (0, 0)
    for size in (1, 2, 4, 8, 16, 32):
        images = np.repeat(values, size, 0)
        model.run(None, {"image": images})
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < args.seconds / 4:
            model.run(None, {"image": images})
            done += size
        rate = done / (time.perf_counter() - start)
        best = max(best, (rate, size))
        print(f"bare session, batch {size:2}: {rate:8.2f} images/s", flush=True)
    del model
    for delay in args.delays.split(","):
        server = RgbyServer(args.rgby, args.model, "--max-delay", delay, "--max-batch", str(args.max_batch),
                            *(["--sessions", args.sessions] if args.sessions else []))
        load(server, values, args.clients, 2)
        for count in (1, args.clients):
            times = load(server, values, count, args.seconds)
            line = summary(f"rgby, --max-delay {delay}, {count} clients", times, args.seconds)
        server.stop()
        print(f"{args.clients} clients: {line['requests_per_s'] / best[0]:.3f} of the bare session "
              f"at its best batch, {best[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "batch", "fastapi"])
    parser.add_argument("--rgby", default="target/release/rgby")
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-delay", type=float, default=0.0, help="FastAPI: seconds")
    parser.add_argument("--max-delay-ms", type=int, default=5)
    parser.add_argument("--sessions", help="sessions of rgby, for `batch`")
    parser.add_argument("--delays", default="5ms", help="rgby, for `batch`: 0ms,5ms")
    args = parser.parse_args()
    {"cost": cost, "batch": batch, "fastapi": serve_fastapi}[args.what](args)


if __name__ == "__main__":
    main()
