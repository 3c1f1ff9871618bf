#!/usr/bin/env python3
"""Compares formulas for the duration of runs on many workers with a simulation.

    python3 benches/scaling.py [--workers 64] [--samples 10000000] [--rate 52.4]

docs/scaling.md explains the formulas. The simulation has slow workers and workers that fail. It
runs with shards fixed by a hash (`rgby score --shard i/n`: a failure loses the work since the last
part) and with a queue of batches (deploy/ray: a failure loses the current batch). Needs only Python
and takes seconds. The same seed gives the same figures.
"""

import argparse
import dataclasses
import heapq
import math
import random
import statistics


@dataclasses.dataclass
class Job:
    """A job and its workers. Times are in seconds, `failures` per second."""

    samples: int
    workers: int
    rate: float
    part: float
    rows: int
    start: float
    restart: float
    slow: int = 0
    slowness: float = 1.0
    failures: float = 0.0

    def slownesses(self):
        """Returns the factor by which each worker is slower; the first `slow` workers are."""
        return [self.slowness if i < self.slow else 1.0 for i in range(self.workers)]


def shards(job, draw):
    """Simulates fixed shards. Returns the seconds until the last worker is done."""
    ends = []
    sizes = shard_sizes(job, draw)
    for size, slowness in zip(sizes, job.slownesses()):
        left, clock = size * slowness / job.rate, job.start
        while True:
            up = draw.expovariate(job.failures) if job.failures else math.inf
            if up >= left:
                break
            # Complete parts are kept.
            left -= up // job.part * job.part
            clock += up + job.restart
        ends.append(clock + left)
    return max(ends)


def shard_sizes(job, draw):
    """Draws the size of each shard: a multinomial draw, by normal approximations in sequence."""
    left, sizes = job.samples, []
    for shards_left in range(job.workers, 1, -1):
        share = 1 / shards_left
        size = round(draw.gauss(left * share, math.sqrt(left * share * (1 - share))))
        sizes.append(min(max(size, 0), left))
        left -= sizes[-1]
    return sizes + [left]


def queue(job, draw):
    """Simulates a queue of batches. Returns the seconds until the last batch is done."""
    slownesses = job.slownesses()
    free = [(job.start, worker) for worker in range(job.workers)]
    heapq.heapify(free)
    end = 0.0
    for first in range(0, job.samples, job.rows):
        clock, worker = heapq.heappop(free)
        rows = min(job.rows, job.samples - first)
        need = rows * slownesses[worker] / job.rate
        while job.failures and (up := draw.expovariate(job.failures)) < need:
            clock += up + job.restart
        clock += need
        end = max(end, clock)
        heapq.heappush(free, (clock, worker))
    return end


def greatest_of(count):
    """Returns the expected maximum of `count` standard normal values (Blom's approximation)."""
    return statistics.NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def loss(failures, lost, restart):
    """Mean and mean square of what a failure costs, at most `lost` of work being done again."""
    # It comes anywhere in a piece of work of that length.
    mean = restart + lost / 2
    return failures * mean, failures * (mean**2 + lost**2 / 12)


def formula_shards(job):
    """Returns the expected end of the later group (slow or normal workers), with fixed shards."""
    cost, square = loss(job.failures, job.part, job.restart)
    ends = []
    for count, slowness in ((job.slow, job.slowness), (job.workers - job.slow, 1.0)):
        if count:
            work = job.samples / job.workers * slowness / job.rate
            spread = job.samples / job.workers * (slowness / job.rate) ** 2
            spread = math.sqrt(spread * (1 + cost) ** 2 + work * square)
            ends.append(job.start + work * (1 + cost) + greatest_of(count) * spread)
    return max(ends)


def formula_queue(job):
    """Returns the expected end with a queue: all workers, plus half of the slowest batch."""
    speeds, slowest = 0.0, 0.0
    for slowness in job.slownesses():
        batch = job.rows * slowness / job.rate
        # A batch is repeated until it completes without a failure.
        took = batch
        if job.failures:
            took = math.expm1(job.failures * batch) * (1 / job.failures + job.restart)
        speeds += job.rows / took
        slowest = max(slowest, took)
    return job.start + job.samples / speeds + slowest / 2


def arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=52.4, help="samples/s per worker")
    parser.add_argument("--part", type=float, default=10, help="seconds of work in a part")
    parser.add_argument("--rows", type=int, default=256, help="samples in a batch of the queue")
    parser.add_argument("--start", type=float, default=5, help="seconds to the first sample")
    parser.add_argument("--restart", type=float, default=60, help="seconds lost by a failure")
    parser.add_argument("--rounds", type=int, default=20, help="simulations per case")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    """Prints a Markdown table."""
    args = arguments()
    shared = {name: getattr(args, name) for name in ("samples", "workers", "rate", "part")}
    shared |= {name: getattr(args, name) for name in ("rows", "start", "restart")}
    few = max(args.workers // 16, 1)
    # The names seed the random numbers: another name gives other figures.
    cases = [
        ("nothing happens", {}),
        (f"{few} workers at half speed", {"slow": few, "slowness": 2}),
        ("a failure an hour of each", {"failures": 1 / 3600}),
        ("both", {"slow": few, "slowness": 2, "failures": 1 / 3600}),
        ("both, ten failures an hour", {"slow": few, "slowness": 2, "failures": 1 / 360}),
    ]
    shown = {
        "nothing happens": "no slow worker, no failure",
        "a failure an hour of each": "one failure per worker and hour",
        "both, ten failures an hour": "both, ten failures per worker and hour",
    }
    ideal = args.samples / args.workers / args.rate
    print(f"{args.samples} samples, {args.workers} workers of {args.rate}/s: ideal {ideal:.0f} s\n")
    print("| case | work | simulated, s (minimum–maximum) | formula, s | error | use of the workers |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, change in cases:
        job = Job(**shared, **change)
        for work, simulate, formula in (
            ("shards", shards, formula_shards),
            ("queue", queue, formula_queue),
        ):
            draw = random.Random(f"{args.seed} {name} {work}")
            ends = [simulate(job, draw) for _ in range(args.rounds)]
            mean, said = statistics.fmean(ends), formula(job)
            able = sum(1 / slowness for slowness in job.slownesses())
            use = job.samples / job.rate / able / mean
            print(
                f"| {shown.get(name, name)} | {work} | {mean:.0f} ({min(ends):.0f}–{max(ends):.0f}) "
                f"| {said:.0f} | {said / mean - 1:+.1%} | {use:.0%} |"
            )


if __name__ == "__main__":
    main()
