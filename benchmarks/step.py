"""Time a whole training step of a Caffe network, beside PyTorch on the same network and batch in the same run.

    python benchmarks/step.py examples/mnist/lenet_train_test.prototxt --batch 64 --shape 1x28x28 --peer-python python

A step is: clear the gradients, forward, backward, SGD with momentum and weight decay. Data and labels are random and
fixed, on both sides; data and Accuracy layers are left out. The two take turns (A B A B ...), each turn in a process of
its own with the same number of threads; PyTorch runs in both of its layouts and the better one counts. Printed are the
minimum, median and maximum over turns of each turn's median, the ratio of the medians, and the peak memory of the
processes. ``--peer-python`` names a Python that has torch; without it only paratrain is timed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fed_net import fed_solver_parameter, feed
from machine import REPOSITORY, describe

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_net.py"


def time_own_steps(options: argparse.Namespace) -> float:
    """Return the median milliseconds of a step in this process."""
    from paratrain.backends import create_backend
    from paratrain.solvers import NetOptions, create_solver

    parameter = fed_solver_parameter(options.net, options.batch, options.sample_shape)
    solver = create_solver(
        parameter,
        backend=create_backend(options.backend, options.precision),
        seed=1,
        net_options=NetOptions(plans_memory=True),
    )
    feed(solver.net, seed=1)
    solver.step(3)
    times = []
    for _ in range(options.iters):
        begin = time.perf_counter()
        solver.step(1)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def run(command: list[str], threads: int) -> tuple[str, float]:
    """Return what a turn prints, and the most memory that it took, in MB."""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as said:
        started = subprocess.Popen(command, env=environment, stdout=printed, stderr=said)
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        said.seek(0)
        if started.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{said.read()}")
        return printed.read(), usage.ru_maxrss / 1024


class Side:
    """The turns of one side: the milliseconds of each, and the most memory that one took."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.megabytes = 0.0

    def add(self, milliseconds: float, megabytes: float) -> None:
        self.times.append(milliseconds)
        self.megabytes = max(self.megabytes, megabytes)

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def table(sides: dict[str, Side]) -> list[str]:
    lines = ["| | min ms | median ms | max ms | peak MB |", "|---|---|---|---|---|"]
    for name, side in sides.items():
        least, most = min(side.times), max(side.times)
        lines.append(f"| {name} | {least:.1f} | {side.median:.1f} | {most:.1f} | {side.megabytes:.0f} |")
    return lines


def compare(options: argparse.Namespace) -> list[str]:
    """Return the lines of a section: its title, the table, and the ratio."""
    own = [sys.executable, __file__, options.net, "--worker", "--backend", options.backend]
    precision = getattr(options, "precision", "float32")
    own += ["--precision", precision]
    own_name = f"paratrain ({options.backend}{'' if precision == 'float32' else ', ' + precision})"
    sizes = ["--batch", str(options.batch), "--shape", options.shape, "--threads", str(options.threads)]
    sizes += ["--iters", str(options.iters)]
    sides = {own_name: Side()}
    peers = {"PyTorch, plain": [], "PyTorch, channels-last": ["--channels-last"]} if options.peer_python else {}
    version = ""
    for _ in range(options.rounds):
        printed, megabytes = run(own + sizes, options.threads)
        sides[own_name].add(float(printed), megabytes)
        for name, flags in peers.items():
            printed, megabytes = run([options.peer_python, str(PEER), options.net, *sizes, *flags], options.threads)
            found = re.search(r"torch (\S+) .*: ([\d.]+) ms/iter", printed)
            assert found, printed
            version = found[1]
            sides.setdefault(name, Side()).add(float(found[2]), megabytes)
    lines = [f"## {Path(options.net).stem}, batch {options.batch}, {options.threads} thread(s)", "", *table(sides)]
    if peers:
        mine, *others = [side.median for side in sides.values()]
        lines += ["", f"PyTorch {version} takes {min(others) / mine:.2f} times as long (in the better of its layouts)."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shape", default="1x28x28", help="C x H x W of one sample")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iters", type=int, default=30, help="timed steps of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--backend", default="onednn")
    parser.add_argument("--precision", default="float32", help="paratrain's; PyTorch computes in float32")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the table to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sample_shape = [int(axis) for axis in options.shape.split("x")]
    if options.worker:
        print(time_own_steps(options))
        return

    text = "\n".join(["# A training step", "", describe(), "", *compare(options)])
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
