"""Train LeNet in bfloat16 and in float32: losses beside each other, accuracy, and whether memory grows.

    python benchmarks/bfloat16_training.py [--steps 1000]

The digits, net and solver are those of ``accuracy.py``, batch 64, one thread; each precision has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy import prepare
from machine import REPOSITORY

EARLY = 100
"""The step after which memory counts as what it stays at."""
TEST_BATCHES = 20


def resident_kib() -> dict[str, int]:
    """Resident memory, and the part of it that belongs to no file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {field: int(lines[field].split()[0]) for field in ("VmRSS", "RssAnon")}


def train(precision: str, steps: int) -> dict[str, Any]:
    """Train in the working folder."""
    from paratrain.backends import create_backend
    from paratrain.proto import SolverParameter, read_prototxt
    from paratrain.solvers import NetOptions, create_solver

    parameter = read_prototxt("solver.prototxt", SolverParameter)
    parameter.test_interval, parameter.test_initialization = 1 << 30, False
    backend = create_backend("onednn", precision)
    assert backend.precision == precision
    solver = create_solver(parameter, backend=backend, seed=1, net_options=NetOptions(plans_memory=True))
    losses, memory = [], {}
    for step in range(1, steps + 1):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        if step in (EARLY, steps):
            memory[step] = resident_kib()
    test = solver.test_nets[0]
    test.share_with(solver.net)
    accuracy = sum(float(test.forward()["accuracy"]) for _ in range(TEST_BATCHES)) / TEST_BATCHES
    solver.close()
    return {"losses": losses, "memory": memory, "accuracy": accuracy}


def compare_training(steps: int) -> Iterator[str]:
    """The lines of a table."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), 1, steps)
        for precision in ("float32", "bfloat16"):
            command = [sys.executable, str(Path(__file__).resolve()), "--steps", str(steps), "--precision", precision]
            done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found[precision] = json.loads(done.stdout.splitlines()[-1])
    yield from ("", f"## {steps:,} steps of LeNet, batch 64, on 8,000 digits of MNIST", "")
    yield from ("| | float32 | bfloat16 |", "|---|---|---|")
    sides = list(found.values())

    def row(label: str, values: list[str]) -> str:
        return f"| {label} | {' | '.join(values)} |"

    for step in dict.fromkeys((1, EARLY, steps)):
        yield row(f"loss of step {step:,}", [f"{side['losses'][step - 1]:.5f}" for side in sides])
    last = min(steps, EARLY)
    yield row(f"mean loss of the last {last} steps", [f"{sum(side['losses'][-last:]) / last:.5f}" for side in sides])
    yield row("accuracy on 2,000 other digits", [f"{100 * side['accuracy']:.2f}%" for side in sides])
    for field, label in (("VmRSS", "resident memory"), ("RssAnon", "of it, not of files")):
        for step in dict.fromkeys((EARLY, steps)):
            values = [f"{side['memory'][str(step)][field] / 1024:.1f} MiB" for side in sides]
            yield row(f"{label} after step {step:,}", values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help=f"at least {EARLY}")
    parser.add_argument("--precision", help="train in this folder, and print what was found: for this program itself")
    options = parser.parse_args()
    if options.steps < EARLY:
        parser.error(f"at least {EARLY} steps are needed")
    if options.precision is not None:
        print(json.dumps(train(options.precision, options.steps)))
        return
    print("\n".join(compare_training(options.steps)))


if __name__ == "__main__":
    main()
