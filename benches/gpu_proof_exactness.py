"""Parts of gpu_proof.py that compare results: with PyTorch, and after an interruption."""

import csv
import hashlib
import json
import subprocess
import time
import zlib

from gpu_proof_support import CLASSES, SIDE, Failed, Skipped, config, program_of, rgby, samples
from gpu_proof_support import small, started, torch_here, work

EPOCHS = 5
LEARNING_RATE = 0.01
# The limits of the project's own comparison (tests/integration/pytorch.rs).
LOSS_LIMIT, STATISTICS_LIMIT = 1e-2, 1e-3


def steps_per_epoch(context):
    return 2 if small(context) else 10


def calm(name, shape):
    """Returns initial values of a tensor of ResNet50 with which training is not chaotic.

    From usual random weights, inputs that are off by 1e-6 change a loss by a percent after ten
    steps. The shares of the residual branches decide; these are as in tests/golden/resnet50_steps.py.
    """
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def uniform(low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    if name.startswith("head."):
        return uniform(-0.02, 0.02)
    if name.endswith("bn3.weight"):
        return uniform(0.1, 0.3)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return uniform(0.5, 1.5)
    if name.startswith("backbone.") and len(shape) == 1:
        return uniform(-0.2, 0.2)
    if name.startswith("backbone.") and len(shape) == 4:
        bound = (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
        return uniform(-bound, bound)
    return None


def calm_start(context):
    """Returns the file of initial weights of the comparison."""
    import torch_networks

    path = work(context) / "calm.onnx"
    if not path.is_file():
        torch_networks.rewrite_export(started(context), path, calm)
    return path


def pytorch_losses(context, noise=0.0, tf32=False):
    """Trains in PyTorch. Returns the mean loss of each epoch and the running statistics."""
    torch, place = torch_here(context)
    import torch_networks

    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    model = torch_networks.load_export(calm_start(context), torch_networks.network("resnet50")).to(place)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=LEARNING_RATE)
    images, targets = (torch.from_numpy(values).to(place) for values in samples(context))
    images = (images.float() / 255 - 0.5) / 0.5 * (1 + noise)
    means = []
    for _ in range(EPOCHS):
        losses = []
        for _ in range(steps_per_epoch(context)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    statistics = {name: value.cpu() for name, value in model.state_dict().items() if "running" in name}
    return means, statistics


def differences(expected, found):
    """Returns the largest relative difference of a loss and of a tensor of running statistics."""
    losses = max(abs(a - b) / abs(a) for a, b in zip(expected[0], found[0], strict=True))
    statistics = max(
        ((value - found[1][name]).abs().max() / value.abs().max()).item()
        for name, value in expected[1].items()
    )
    return losses, statistics


def equality(context, row, device):
    """Trains 50 steps with rgby and with PyTorch, from the same weights on the same batch."""
    torch_here(context)
    import torch_networks

    folder = work(context)
    images, _ = samples(context)
    steps = steps_per_epoch(context)
    path = config(context, "equality", epochs=EPOCHS, steps=steps, batch=len(images))
    run = folder / f"equality-{device.replace(':', '_')}"
    words = ["--config", path, "--images", folder / "batch", "--labels", folder / "batch.csv"]
    start = calm_start(context)
    words += ["--from", start, "--device", device, "--out", run]
    if device.startswith("torch"):
        words += ["--set", "train.precision=fp32"]
    rgby(context, device, "-q", "train", *words)
    rgby(context, device, "-q", "export", "--from", run / "checkpoints/last", "--out", f"{run}.onnx")
    with (run / "metrics.csv").open() as file:
        losses = [float(line["train_loss"]) for line in csv.DictReader(file)]
    model = torch_networks.network("resnet50")
    state = torch_networks.export_state(f"{run}.onnx", model)
    found = losses, {name: value for name, value in state.items() if "running" in name}
    expected = pytorch_losses(context)
    loss, statistics = differences(expected, found)
    before = torch_networks.export_state(start, model)
    moved = differences(expected, (expected[0], before))[1]
    controls = {"inputs off by 1e-6": differences(expected, pytorch_losses(context, noise=1e-6))}
    if not small(context):
        controls["TensorFloat-32"] = differences(expected, pytorch_losses(context, tf32=True))
    shown = "; ".join(f"PyTorch with {name}: {a:.1e}, {b:.1e}" for name, (a, b) in controls.items())
    verdict = loss <= LOSS_LIMIT and statistics <= STATISTICS_LIMIT
    row(
        what=f"{EPOCHS * steps} steps of ResNet50 at {SIDE}, batch {len(images)}, beside PyTorch in float32",
        device=device,
        agrees=verdict,
        loss=loss,
        statistics=statistics,
        controls=controls,
        losses=losses,
        expected=expected[0],
        text=f"{'agrees' if verdict else 'DIFFERS'}: losses within {loss:.1e}, running statistics "
        f"{statistics:.1e}, which the training changed by {moved:.1e} ({shown})",
    )
    if moved < 0.01:
        raise Failed(f"the training changed the statistics by {moved:.1e} only")
    if not verdict:
        raise Failed(f"losses differ by {loss:.1e}, running statistics by {statistics:.1e}")


def hashes(run):
    """Returns a hash of each file that an interruption must not change."""
    paths = [run / "checkpoints/last" / name for name in ("weights.bpk", "optimizer.bpk")]
    paths.append(run / "metrics.csv")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def resume(context, row, device):
    """Compares a run that was killed and resumed with an uninterrupted run."""
    folder = work(context)
    steps, every = (6, 2) if small(context) else (40, 10)
    path = config(context, "resume", epochs=2, steps=steps, batch=4)
    name = device.replace(":", "_")
    words = ["-q", "train", "--config", path, "--images", folder / "batch", "--labels", folder / "batch.csv"]
    words += ["--from", started(context), "--device", device, "--checkpoint-every", f"{every} steps"]
    how = ""
    whole, parts = folder / f"whole-{name}", folder / f"parts-{name}"
    if device.startswith("torch"):
        try:
            chosen = ["--set", "train.deterministic=true"]
            rgby(context, device, *words, *chosen, "--out", whole)
            words, how = words + chosen, ", train.deterministic = true"
        except Skipped:
            how = ", this build has no train.deterministic"
    if not whole.exists():
        rgby(context, device, *words, "--out", whole)
    command = [program_of(context, device), *map(str, words), "--out", str(parts)]
    process = subprocess.Popen(command)
    done = kill_after(process, parts / "checkpoints/last/checkpoint.json", steps, every + 1)
    rgby(context, device, *words, "--out", parts, "--resume")
    expected, found = hashes(whole), hashes(parts)
    differ = [file for file in expected if expected[file] != found[file]]
    verdict = "bit-identical weights, optimizer state and metrics"
    if differ:
        verdict = f"differs in {', '.join(differ)}"
    row(
        what=f"a killed and resumed run beside an uninterrupted one{how}",
        device=device,
        killed_at_step=done,
        identical=not differ,
        text=f"{verdict} (killed after step {done} of {2 * steps})",
    )
    if differ:
        raise Failed(verdict)


def kill_after(process, checkpoint, steps_per_epoch, after):
    """Kills a run after a checkpoint of at least that step; returns the step."""
    done = 0
    while process.poll() is None and done < after:
        time.sleep(0.002)
        try:
            progress = json.loads(checkpoint.read_text())["progress"]
        except (OSError, ValueError):
            # It is being replaced.
            continue
        done = progress["epoch"] * steps_per_epoch + progress["step_in_epoch"]
    if process.poll() is not None:
        raise Failed("the run ended before it could be killed")
    process.kill()
    process.wait()
    return done
