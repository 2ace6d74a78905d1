"""Time the update of 60 million parameters, beside PyTorch's optimizers in the same run.

    python benchmarks/update.py --peer-python python

The parameters have the shapes of AlexNet's in Caffe (BVLC's CaffeNet, 60965224 values in 16 blobs): momentum 0.9, weight decay
0.0005; biases learn at twice the rate and do not decay, on both sides. An update turns gradients that are there into new
parameters; the gradients are random, and put back between two updates, outside the time. With the backend numpy
paratrain also leaves what it subtracted in the gradients' place, as Caffe does.

All take turns (A B A B ...), each turn in a process of its own with the same number of threads. Printed are the minimum,
median and maximum over turns of each turn's median, and the ratio of medians. ``--peer-python`` names a Python that has torch;
without it only paratrain is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import REPOSITORY, describe

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_update.py"
SHAPES = [
    (96, 3, 11, 11), (96,), (256, 48, 5, 5), (256,), (384, 256, 3, 3), (384,), (384, 192, 3, 3), (384,), (256, 192, 3, 3),
    (256,), (4096, 9216), (4096,), (4096, 4096), (4096,), (1000, 4096), (1000,),
]  # fmt: skip


def make_solver(solver_type: str, backend: str, shapes: Sequence[tuple[int, ...]] = SHAPES) -> tuple[Any, Any]:
    """Return a solver of parameters of these shapes, and a gradient for them."""
    import numpy as np

    from paratrain.backends import create_backend
    from paratrain.proto import NetParameter, SolverParameter
    from paratrain.solvers import create_solver

    net = NetParameter(name="parameters")
    for index, shape in enumerate(shapes):
        layer = net.layer.add(name=f"parameter{index}", type="Parameter", top=[f"parameter{index}"])
        layer.parameter_param.shape.dim.extend(shape)
        is_bias = len(shape) == 1
        layer.param.add(lr_mult=2.0 if is_bias else 1.0, decay_mult=0.0 if is_bias else 1.0)
    parameter = SolverParameter(
        type=solver_type, base_lr=1e-3, lr_policy="fixed", momentum=0.9, weight_decay=5e-4, max_iter=1 << 30, net_param=net,
        random_seed=1, snapshot_after_train=False,
    )  # fmt: skip
    solver = create_solver(parameter, backend=create_backend(backend), seed=1)
    random = np.random.default_rng(1)
    parameters = solver.net.parameters
    parameters.data.mutable_host()[...] = random.standard_normal(parameters.count, np.float32) * np.float32(0.01)
    return solver, random.standard_normal(parameters.count, np.float32)


def time_own_updates(solver_type: str, iters: int, backend: str) -> float:
    """Return the median milliseconds of an update in this process."""
    solver, gradient = make_solver(solver_type, backend)
    parameters = solver.net.parameters
    times = []
    for _ in range(iters + 2):
        parameters.diff.mutable_host()[...] = gradient
        begin = time.perf_counter()
        solver.update_parameters()
        times.append(time.perf_counter() - begin)
        solver.iter += 1
    return statistics.median(times[2:]) * 1e3


def run(command: list[str], threads: int) -> str:
    """Run a turn with so many threads; return what it prints."""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def compare(solver_type: str, options: argparse.Namespace) -> tuple[list[str], str]:
    """Return the lines of the table of one solver type, and the version of PyTorch."""
    sizes = ["--iters", str(options.iters), "--threads", str(options.threads)]
    own = [sys.executable, __file__, "--worker", solver_type, "--backend", options.backend]
    commands = {"paratrain": [*own, *sizes]}
    if options.peer_python:
        for form in ("foreach", "fused"):
            peer = [options.peer_python, str(PEER), solver_type, form, *sizes]
            commands[f"PyTorch, {form}"] = [*peer, "--shapes", repr(SHAPES)]
    times: dict[str, list[float]] = {name: [] for name in commands}
    version = ""
    for _ in range(options.rounds):
        for name, command in commands.items():
            milliseconds, _, found = run(command, options.threads).partition(" ")
            times[name].append(float(milliseconds))
            version = found.strip() or version
    own_ms = statistics.median(times["paratrain"])
    lines = [
        "",
        f"## {solver_type}",
        "",
        "| | min ms | median ms | max ms | paratrain takes |",
        "|---|---|---|---|---|",
    ]
    for name, found_times in times.items():
        median = statistics.median(found_times)
        ratio = "" if name == "paratrain" else f"{own_ms / median:.2f} times its time"
        lines.append(f"| {name} | {min(found_times):.1f} | {median:.1f} | {max(found_times):.1f} | {ratio} |")
    return lines, version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--types", default="SGD,Adam", help="solver types, divided by commas: SGD, Nesterov, Adam, AdamW"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="onednn", help="onednn or numpy")
    parser.add_argument("--iters", type=int, default=10, help="timed updates of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the tables to this file")
    parser.add_argument("--worker", metavar="TYPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(time_own_updates(options.worker, options.iters, options.backend))
        return
    tables, version = [], ""
    for solver_type in options.types.split(","):
        lines, version = compare(solver_type, options)
        tables += lines
    head = [f"# The update of 60965224 parameters, {options.threads} thread(s)", "", describe()]
    text = "\n".join([*head, *([f"- PyTorch {version}"] if version else []), *tables])
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
