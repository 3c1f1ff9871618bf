#!/usr/bin/env python3
"""Tests and measures rgby on a GPU in one command, beside PyTorch.

    python3 gpu_proof.py OUT [--rgby PATH]... [--device gpu|cpu] [--minutes 10] [--only NAME]...

benches/pack_gpu_proof.sh packs this file, its modules and one or more programs `rgby` for the machine;
docs/devices.md says how to build them. This Python needs torch and numpy, and onnxruntime-gpu for
scoring and for the features of a frozen backbone. No internet, no data and no weights are needed.

Parts: equality of 50 training steps with PyTorch, a killed and resumed run, images/s of training
steps, training from PNG files, features of a frozen backbone, scoring with CUDA and TensorRT. Each
part runs in a process of its own with its own time limit. A part that fails, or that this machine
or this build does not support, is listed with the reason; the others still run.

OUT/gpu_proof.json has everything, OUT/gpu_proof.md is the table, OUT/log has the output of the
parts. `--device cpu` runs all parts on the CPU with small networks, to test this program.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time

from gpu_proof_parts import PARTS
from gpu_proof_support import Failed, Skipped, devices, library_folders

HERE = pathlib.Path(__file__).resolve().parent
# Time for writing the results.
RESERVE = 5


class Plan:
    """The parts to run, in order, with their arguments and time limits in seconds."""

    def __init__(self, context):
        self.parts = []
        self.cpu = cpu = context["mode"] == "cpu"
        self.add("data", 60)
        tested = context["tested"]
        for device in tested:
            self.add("equality", 75, device=device)
        for arch, size, batch in context["cases"]:
            case = {"arch": arch, "size": size, "batch": batch}
            for precision in ["fp32"] if cpu else ["fp32", "tf32", "bf16"]:
                self.add("pytorch_step", 40, precision=precision, **case)
            for device in tested:
                several = device.startswith("torch") and not cpu
                for precision in ["default", "fp32", "bf16"] if several else ["default"]:
                    limit = 40 if device.startswith("torch") else 60
                    self.add("rgby_step", limit, device=device, precision=precision, **case)
        for device in tested:
            self.add("resume", 50, device=device)
        for device in tested:
            self.add("end_to_end", 60, device=device)
            self.add("features", 60, device=device)
        for provider in ["cpu"] if cpu else ["cuda", "tensorrt"]:
            self.add("score", 150 if provider == "tensorrt" else 40, provider=provider)

    def add(self, name, limit, **arguments):
        # The CPU of a test machine may be slow or shared.
        limit *= 4 if self.cpu else 1
        self.parts.append({"name": name, "arguments": arguments, "limit": limit})


def run_part(part, context, out, seconds):
    """Runs a part in a process of its own. Returns the part with its status and rows."""
    label = "-".join([part["name"], *map(str, part["arguments"].values())]).replace(":", "_")
    rows, log = out / "log" / f"{label}.jsonl", out / "log" / f"{label}.txt"
    rows.unlink(missing_ok=True)
    words = {"part": part, "context": context, "rows": str(rows)}
    start = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "gpu_proof.py"), "--part", json.dumps(words), str(out)],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            status, reason = {0: ("ok", ""), 3: ("skipped", "")}.get(code, ("failed", ""))
        except subprocess.TimeoutExpired:
            status, reason = "failed", f"took more than {seconds:.0f} s"
            # The group is the part's own session.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    if status != "ok" and not reason:
        ends = [row["reason"] for row in found if "reason" in row]
        reason = ends[-1] if ends else last_line(log)
    found = [row for row in found if "reason" not in row]
    seconds = time.monotonic() - start
    return {**part, "status": status, "reason": reason, "seconds": seconds, "rows": found}


def last_line(log):
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def in_this_process(words):
    """Runs one part; the exit code is 3 if it was skipped."""
    words = json.loads(words)
    part, context = words["part"], words["context"]
    with open(words["rows"], "a", buffering=1) as rows:

        def row(**values):
            rows.write(json.dumps(values) + "\n")

        try:
            PARTS[part["name"]](context, row, **part["arguments"])
        except (Skipped, Failed) as error:
            row(reason=str(error))
            sys.exit(3 if isinstance(error, Skipped) else 1)


def machine():
    """Returns what the results depend on."""
    about = {"system": platform.platform(), "python": platform.python_version()}
    about["cores"] = len(os.sched_getaffinity(0))
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            about["processor"] = line.split(":", 1)[1].strip()
            break
    # In a process of its own: importing torch may fail in many ways.
    script = (
        "import json, torch\n"
        "found = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'gpu': None}\n"
        "found['cudnn'] = torch.backends.cudnn.version()\n"
        "if torch.cuda.is_available(): found['gpu'] = torch.cuda.get_device_name(0)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode == 0:
        about.update(json.loads(done.stdout))
    else:
        about["torch"] = f"not usable: {done.stderr.strip().splitlines()[-1]}"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True)
        about["driver"] = done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
    return about


def context_of(arguments, out, programs):
    """Returns everything that the parts need, as JSON values."""
    cpu = arguments.device == "cpu"
    found, errors = devices(programs)
    wanted = ["cpu", "torch:cpu"] if cpu else ["torch:cuda", "cuda", "wgpu"]
    tested = [next((name for name in found if name.startswith(kind)), None) for kind in wanted]
    tested = [name for name in tested if name]
    if not cpu and len(tested) > 1:
        # The same GPU through Vulkan only matters where nothing else drives it.
        tested = [name for name in tested if not name.startswith("wgpu")]
    return {
        "mode": arguments.device,
        "out": str(out),
        "programs": programs,
        "devices": found,
        "errors": errors,
        "tested": tested,
        "missing": [kind for kind in wanted if not any(name.startswith(kind) for name in tested)],
        "cases": [("resnet50", 64, 4), ("inception-resnet-v2", 96, 2)]
        if cpu
        else [("resnet50", 224, 64), ("inception-resnet-v2", 139, 64)],
    }


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def table(result):
    """Returns the Markdown text."""
    about = result["machine"]
    lines = ["# GPU proof", ""]
    for name in ("gpu", "driver", "torch", "cuda", "processor", "cores"):
        if about.get(name) is not None:
            lines.append(f"- {name}: {about[name]}")
    lines += [f"- program: {path}" for path in result["context"]["programs"]]
    missing = ", ".join(result["context"]["missing"])
    if missing:
        lines.append(f"- devices that the programs or the machine lack: {missing}")
    lines += [f"- {path}: {reason}" for path, reason in result["context"]["errors"].items()]
    lines += [f"- {result['seconds']:.0f} s in all", ""]
    lines += speed_table(result["parts"]) + other_table(result["parts"]) + ended_table(result["parts"])
    return "\n".join(lines) + "\n"


def speed_table(parts):
    """Training steps: each of rgby's beside PyTorch's of the same case."""
    rows = [row for part in parts for row in part["rows"] if row["what"] == "step"]
    theirs = {}
    for row in rows:
        if row["program"] == "PyTorch":
            theirs.setdefault(row["case"], {})[row["precision"]] = row["images_per_s"]
    ours = [row for row in rows if row["program"] == "rgby"]
    if not rows:
        return []
    names = [name for name in ("fp32", "tf32", "bf16") if any(name in found for found in theirs.values())]
    lines = ["## Training step, images/s", ""]
    heads = ["network", "rgby on", "precision", "rgby"]
    for name in names:
        heads += [f"PyTorch {name}", "ratio"]
    if ours:
        lines += ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in ours:
        cells = [row["case"], row["device"], row["precision"], number(row["images_per_s"])]
        for name in names:
            speed = theirs.get(row["case"], {}).get(name)
            cells += [number(speed), f"{row['images_per_s'] / speed:.2f}"] if speed else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    for case in theirs if not ours else []:
        speeds = ", ".join(f"{name} {number(speed)}" for name, speed in theirs[case].items())
        lines.append(f"- PyTorch alone, {case}: {speeds}")
    return [*lines, ""]


def other_table(parts):
    rows = [row for part in parts for row in part["rows"] if row["what"] != "step" and "text" in row]
    lines = ["## Other results", "", "| what | device | result |", "| --- | --- | --- |"]
    lines += [f"| {row['what']} | {row['device']} | {row['text']} |" for row in rows]
    return [*lines, ""] if rows else []


def ended_table(parts):
    ended = [part for part in parts if part["status"] != "ok"]
    lines = ["## Skipped and failed", "", "| part | status | reason |", "| --- | --- | --- |"]
    for part in ended:
        name = " ".join([part["name"], *map(str, part["arguments"].values())])
        reason = part["reason"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {name} | {part['status']} | {reason} |")
    return [*lines, ""] if ended else ["All parts ran.", ""]


def write(out, result):
    """Writes both files; each is complete at any time."""
    for name, text in [("json", json.dumps(result, indent=1) + "\n"), ("md", table(result))]:
        new = out / f"gpu_proof.{name}.new"
        new.write_text(text)
        new.replace(out / f"gpu_proof.{name}")


def arguments_of():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder of the results")
    parser.add_argument("--rgby", action="append", help="program; may be repeated [default: ./rgby]")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--minutes", type=float, default=10, help="time limit of all parts together")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run only these parts")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    start = time.monotonic()
    arguments = arguments_of()
    if arguments.part:
        return in_this_process(arguments.part)
    out = arguments.out.resolve()
    (out / "log").mkdir(parents=True, exist_ok=True)
    programs = [str(pathlib.Path(path).resolve()) for path in arguments.rgby or ["rgby"]]
    os.environ.update(library_folders())
    context = context_of(arguments, out, programs)
    result = {"machine": machine(), "context": context, "parts": []}
    for part in Plan(context).parts:
        if arguments.only and part["name"] not in [*arguments.only, "data"]:
            continue
        left = arguments.minutes * 60 - RESERVE - (time.monotonic() - start)
        name = " ".join([part["name"], *map(str, part["arguments"].values())])
        if left < 5:
            done = {**part, "status": "skipped", "reason": "no time left", "seconds": 0, "rows": []}
        else:
            done = run_part(part, context, out, min(part["limit"], left))
        print(f"{name}: {done['status']} {done['reason']} ({done['seconds']:.0f} s)", flush=True)
        result["parts"].append(done)
        result["seconds"] = time.monotonic() - start
        write(out, result)
    shutil.rmtree(out / "work", ignore_errors=True)
    print(f"\n{(out / 'gpu_proof.md').read_text()}")
    failed = any(part["status"] == "failed" for part in result["parts"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
