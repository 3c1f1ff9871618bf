"""Puts `rgby serve` under load for a long time and counts the responses.

    pip install onnxruntime numpy onnx pillow
    python3 benches/serve_load.py overload --rgby target/release/rgby --seconds 60
    python3 benches/serve_load.py soak     --rgby target/release/rgby --seconds 3600

The script sends requests at a fixed rate, whether or not earlier ones have completed. `overload`
sends ten times the rate that the server reaches, `soak` half of it: tensors, raw planes, uploads
and a few invalid requests. The exit code is 1 if

- a request gets an unexpected status,
- memory grows by more than `--most-drift`,
- a health check takes longer than `--most-health-ms`,
- with `overload`, an accepted request waits longer than a full queue takes.

The model consists of convolutions and takes about 15 ms per image and core.
"""

import argparse
import asyncio
import collections
import http.client
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time

import numpy as np
from serve import SIDE, RgbyServer, load, save_model

# Expected statuses of each kind of request.
WANTED = {"tensor": {200}, "planes": {200}, "upload": {200}, "wrong": {400}}


def slow_model(path, layers):
    """Writes a model of convolutions with 64 channels and their means: slow, with little memory."""
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, last, width = [], [], "image", 4
    for layer in range(layers):
        weight = (random.standard_normal((64, width, 3, 3)) / np.sqrt(9 * width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, width = f"r{layer}", 64
    head = (random.standard_normal((64, 28)) / 8).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    save_model(path, nodes, weights)


def infer_request(name, values):
    datatype = {"float32": "FP32", "uint8": "UINT8"}[str(values.dtype)]
    head = json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": list(values.shape),
                                   "parameters": {"binary_data_size": values.nbytes}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return "/v2/models/rgby/infer", head + values.tobytes(), headers


def upload_request(random):
    from PIL import Image

    body = b""
    for stain in ("red", "green", "blue", "yellow"):
        png = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (64, 64), np.uint8)).save(png, "png")
        body += (f'--rgby\r\nContent-Disposition: form-data; name="{stain}"; filename="{stain}.png"'
                 "\r\n\r\n").encode() + png.getvalue() + b"\r\n"
    return "/v1/predict", body + b"--rgby--\r\n", {"Content-Type": "multipart/form-data; boundary=rgby"}


def messages():
    """Returns each kind of request as bytes."""
    random = np.random.default_rng(1)
    image = random.standard_normal((1, 4, SIDE, SIDE)).astype(np.float32)
    kinds = {
        "tensor": infer_request("image", image),
        "planes": infer_request("planes", random.integers(0, 255, (1, 4, 64, 64), np.uint8)),
        "upload": upload_request(random),
        "wrong": infer_request("image", image[:, :3]),
    }

    def message(path, body, headers):
        lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    return {kind: message(*request) for kind, request in kinds.items()}


class Clients:
    """Sends requests at their scheduled times, over as many connections as needed."""

    def __init__(self, port):
        self.port, self.free = port, []
        self.answers = collections.Counter()
        self.times = []

    async def ask(self, kind, message):
        start = time.perf_counter()
        kept = bool(self.free)
        try:
            reader, writer = self.free.pop() if kept else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            if kept and not getattr(error, "partial", b""):
                # The server has closed the idle connection; retry on another one.
                return await self.ask(kind, message)
            self.answers[kind, type(error).__name__] += 1
            return
        status = int(head.split(b" ", 2)[1])
        self.answers[kind, status] += 1
        if status == 200:
            self.times.append(time.perf_counter() - start)
        if b"connection: close" in head:
            writer.close()
        else:
            self.free.append((reader, writer))

    async def run(self, kinds, rate, seconds):
        names, tasks = list(kinds), set()
        # One invalid request in twenty, the other kinds in turn.
        sound = [name for name in names if name != "wrong"]
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            kind = "wrong" if "wrong" in kinds and number % 20 == 19 else sound[number % len(sound)]
            wait = start + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 20 == 0:
                await asyncio.sleep(0)
            task = asyncio.create_task(self.ask(kind, kinds[kind]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)


def watch(port, pid, every, until, results):
    """Measures latencies of health checks (s) and resident memory (MB) during the load."""
    health, memory = [], []
    while not until.is_set():
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/v2/health/ready")
        answer = connection.getresponse()
        answer.read()
        health.append(time.perf_counter() - start if answer.status == 200 else float("inf"))
        connection.close()
        with open(f"/proc/{pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        memory.append(int(line.split()[1]) / 1024)
        until.wait(every)
    results.put((health, memory))


def under_load(server, kinds, rate, seconds):
    """Runs the load. Returns the clients, the latencies of health checks and the memory."""
    results, until = multiprocessing.Queue(), multiprocessing.Event()
    arguments = (server.port, server.process.pid, min(0.1 + seconds / 3600, 1), until, results)
    watcher = multiprocessing.Process(target=watch, args=arguments)
    watcher.start()
    clients = Clients(server.port)
    begin = time.perf_counter()
    asyncio.run(clients.run(kinds, rate, seconds))
    took = time.perf_counter() - begin
    until.set()
    health, memory = results.get()
    watcher.join()
    offered = sum(clients.answers.values())
    print(f"{offered} requests in {took:.1f} s, {offered / took:.0f}/s, {len(clients.times) / took:.1f}/s with 200")
    for (kind, status), count in sorted(clients.answers.items(), key=str):
        print(f"  {kind:8} {status}: {count}")
    return clients, health, memory


def drift(memory):
    """Returns the growth of memory from the second quarter to the last, in percent."""
    tenth = max(len(memory) // 10, 1)
    tenths = [statistics.median(memory[at:at + tenth]) for at in range(0, len(memory), tenth)]
    print("memory by tenths: " + ", ".join(f"{megabytes:.1f}" for megabytes in tenths) + " MB")
    quarter = len(memory) // 4
    early, late = statistics.median(memory[quarter:2 * quarter]), statistics.median(memory[-quarter:])
    print(f"memory: {early:.1f} MB in the second quarter, {late:.1f} MB in the last, maximum {max(memory):.1f} MB")
    return 100 * (late - early) / early


def percentiles(name, times):
    times = sorted(times)
    at = lambda share: times[min(int(len(times) * share), len(times) - 1)] * 1e3
    print(f"{name}: p50 {at(0.5):.1f} ms, p95 {at(0.95):.1f} ms, p99 {at(0.99):.1f} ms, maximum {at(1):.1f} ms")
    return times[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overload", "soak"])
    parser.add_argument("--rgby", default="target/release/rgby")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--max-queue", type=int, default=64)
    parser.add_argument("--sessions", type=int, default=os.cpu_count(), help="one thread each")
    parser.add_argument("--most-drift", type=float, default=2, help="growth of memory, percent")
    parser.add_argument("--most-health-ms", type=float, default=50)
    args = parser.parse_args()
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.onnx")
        slow_model(model, args.layers)
        flags = ["--max-queue", args.max_queue, "--sessions", args.sessions, "--intra-threads", 1]
        server = RgbyServer(args.rgby, model, *map(str, flags))
        image = np.zeros((1, 4, SIDE, SIDE), np.float32)
        load(server, image, 16, 2)
        rate = len(load(server, image, 16, 5)) / 5
        print(f"16 clients: {rate:.1f} images/s")
        kinds = messages()
        if args.what == "overload":
            clients, health, memory = under_load(server, {"tensor": kinds["tensor"]}, 10 * rate, args.seconds)
            allowed = {"tensor": {200, 429, 503, 504}}
            longest = percentiles("accepted", clients.times)
            # A full queue, the current batch of each session, and the batch of the request.
            batches = args.sessions + 1
            bound = (args.max_queue + batches * 32) / (len(clients.times) / args.seconds)
            print(f"a full queue and {batches} batches take {bound * 1e3:.0f} ms")
            if longest > bound:
                complaints.append("a request waited longer than a full queue takes")
        else:
            clients, health, memory = under_load(server, kinds, rate / 2, args.seconds)
            allowed = WANTED
            percentiles("completed", clients.times)
        if percentiles("health", health) * 1e3 > args.most_health_ms:
            complaints.append("a health check was too slow")
        change = drift(memory)
        print(f"drift: {change:+.2f} %")
        if change > args.most_drift:
            complaints.append("memory grew")
        for (kind, status), count in clients.answers.items():
            if status not in allowed[kind]:
                complaints.append(f"{count} responses {status} to {kind}")
        if server.process.poll() is not None:
            complaints.append("the server has ended")
        server.stop()
        if server.process.returncode != 143:
            complaints.append(f"the server ended with exit code {server.process.returncode}")
    print("; ".join(complaints) or "passed")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
