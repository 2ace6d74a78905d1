"""Time a whole training step of a Caffe network, beside PyTorch on the same network and batch in the same run.

    python benchmarks/step.py examples/mnist/lenet_train_test.prototxt --batch 64 --shape 1x28x28 --peer-python python

A step is: clear the gradients, forward, backward, SGD with momentum and weight decay. Data and labels are random and
fixed, on both sides; data and Accuracy layers are left out. The two take turns (A B A B ...), each turn in a process of
its own with the same number of threads; PyTorch runs in both of its layouts and the better one counts. Printed are the
minimum, median and maximum over turns of each turn's median, and the ratio of the medians. ``--peer-python`` names a
Python that has torch; without it only paratrain is timed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fed_net import fed_solver_parameter, feed
from machine import REPOSITORY, describe

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_net.py"


def time_own_steps(options: argparse.Namespace) -> tuple[float, float]:
    """Return the median milliseconds of a step in this process, and its peak memory in MB."""
    from paratrain.backends import create_backend
    from paratrain.solvers import create_solver

    parameter = fed_solver_parameter(options.net, options.batch, options.sample_shape)
    solver = create_solver(parameter, backend=create_backend(options.backend), seed=1)
    feed(solver.net, seed=1)
    solver.step(3)
    times = []
    for _ in range(options.iters):
        begin = time.perf_counter()
        solver.step(1)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(command: list[str], threads: int) -> str:
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def table(rows: dict[str, list[float]]) -> list[str]:
    lines = ["| | min ms | median ms | max ms |", "|---|---|---|---|"]
    for name, times in rows.items():
        lines.append(f"| {name} | {min(times):.1f} | {statistics.median(times):.1f} | {max(times):.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shape", default="1x28x28", help="C x H x W of one sample")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iters", type=int, default=30, help="timed steps of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the table to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sample_shape = [int(axis) for axis in options.shape.split("x")]
    if options.worker:
        print(*time_own_steps(options))
        return

    own = [sys.executable, __file__, options.net, "--worker", "--backend", options.backend]
    sizes = ["--batch", str(options.batch), "--shape", options.shape, "--threads", str(options.threads)]
    sizes += ["--iters", str(options.iters)]
    rows: dict[str, list[float]] = {f"paratrain ({options.backend})": []}
    peers = {"PyTorch, plain": [], "PyTorch, channels-last": ["--channels-last"]} if options.peer_python else {}
    memory = 0.0
    peer_version = ""
    for _ in range(options.rounds):
        milliseconds, megabytes = map(float, run(own + sizes, options.threads).split())
        rows[f"paratrain ({options.backend})"].append(milliseconds)
        memory = max(memory, megabytes)
        for name, flags in peers.items():
            printed = run([options.peer_python, str(PEER), options.net, *sizes, *flags], options.threads)
            found = re.search(r"torch (\S+) .*: ([\d.]+) ms/iter", printed)
            assert found, printed
            peer_version = found[1]
            rows.setdefault(name, []).append(float(found[2]))
    lines = [f"# A training step of {Path(options.net).name}, batch {options.batch}, {options.threads} thread(s)", ""]
    lines += [describe(), f"- peak memory of paratrain's process: {memory:.0f} MB"]
    lines += [f"- PyTorch {peer_version}"] if peers else []
    lines += ["", *table(rows), ""]
    if peers:
        medians = [statistics.median(times) for times in rows.values()]
        lines.append(f"paratrain takes {medians[0] / min(medians[1:]):.2f} times PyTorch's time (the better layout).")
    text = "\n".join(lines)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
