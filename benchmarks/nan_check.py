"""Time what the watch for numbers that are not finite costs in the update of 60 million parameters.

    python benchmarks/nan_check.py

Per solver type: an update that looks at nothing, one that looks at each piece of the gradient when it comes to it (what a
step does by default), and the pass over the whole gradient that would say the same beforehand (what a step does with ``--nan
skip``). They take turns in one process with one thread. Printed are the minimum and the median of the milliseconds of
processor time, and what the look at the pieces costs of the pass: the median of the differences between neighbouring turns,
divided by the median of the pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe
from update import make_solver


def measure(solver_type: str, rounds: int) -> list[str]:
    """Return the rows of the table for one solver type."""
    solver, gradient = make_solver(solver_type)
    diff = solver.net.parameters.diff
    works = {
        "update": lambda: solver.update_parameters(),
        "update that looks": lambda: solver.update_parameters(guarded=True),
        "pass over the gradient": solver.flat_update.is_gradient_finite,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            diff.mutable_host()[...] = gradient
            begin = time.process_time()
            assert work() is not False
            times[name].append((time.process_time() - begin) * 1e3)
            solver.iter += 1
    rows = []
    for name, found in times.items():
        rows.append(f"| {solver_type} | {name} | {min(found[1:]):.1f} | {statistics.median(found[1:]):.1f} |")
    plain, looks, whole = (times[name][1:] for name in works)
    difference = statistics.median(more - less for more, less in zip(looks, plain, strict=True))
    rows.append(f"| {solver_type} | looking, of the pass | | {difference / statistics.median(whole):.0%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="SGD,Adam", help="solver types, divided by commas")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(describe())
    print("\n| type | what | min ms | median ms |\n|---|---|---|---|")
    for solver_type in options.types.split(","):
        print("\n".join(measure(solver_type, options.rounds)))


if __name__ == "__main__":
    main()
