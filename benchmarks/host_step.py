"""Time what the host does for a recorded training step on a GPU: with the simulated GPU, which needs none, and no work in it.

    python benchmarks/host_step.py [--nets lenet,resnet50] [--precision tf32] --save benchmarks/results/host_step.md

Kernels and recordings are given to the simulated GPU (``tests/simulated_gpu``) and not run. What is left is Python: the
project's and the simulation's. Then CuPy's calls are replaced by functions that do nothing, and what is left is the project's.
The time of the real calls, some microseconds each, is in neither, and they are counted: so many of them make a step. Times are
medians over the steps of a block, the least of many blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from gpu_nets import NETS, make_solver
from machine import REPOSITORY, describe

if TYPE_CHECKING:
    from paratrain.solvers import Solver

_SAMPLES = 2
"""In a batch: what the host does is the same for any."""
_STEPS, _BLOCKS = 50, 100


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """A context in which the simulated GPU takes what it is given, and runs nothing."""
    from simulated import kernels, streams

    def nothing(*_: Any) -> None:
        """It costs less than a mock of its own."""

    with mock.patch.object(kernels.Kernel, "_run", nothing), mock.patch.object(streams.Graph, "_run", nothing):
        yield


@contextlib.contextmanager
def without_calls(at_call: Callable[[str], object]) -> Iterator[None]:
    """A context in which CuPy's calls of a step do nothing but to call ``at_call`` with their name."""
    import cupy
    from cupy import _raw
    from simulated import streams

    def get(_array: Any, *_: Any, out: Any = None, **__: Any) -> Any:
        at_call("download")
        out.fill(0)
        return out

    calls = [
        (streams.Graph, "launch", "graph"),
        (_raw._Function, "__call__", "kernel"),
        (cupy.cuda.Stream, "synchronize", "wait"),
        (cupy.cuda.Event, "synchronize", "wait for an event"),
        (cupy.cuda.Event, "record", "event"),
        (cupy.cuda.runtime, "memcpyAsync", "copy"),
        (cupy.ndarray, "set", "upload"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, label in calls:
            replaced = lambda *_, label=label, **__: at_call(label)  # noqa: E731
            stack.enter_context(mock.patch.object(owner, name, replaced))
        stack.enter_context(mock.patch.object(cupy.ndarray, "get", get))
        yield


def step_us(solver: Solver) -> float:
    """Microseconds of a step, told by what is called when one has ended."""
    ends: list[float] = []
    solver.after_update.append(lambda: ends.append(time.perf_counter()))
    medians = []
    for _ in range(_BLOCKS):
        ends.clear()
        solver.step(_STEPS)
        medians.append(statistics.median(after - before for before, after in itertools.pairwise(ends)))
    solver.after_update.clear()
    return min(medians) * 1e6


def parts_us(solver: Solver) -> tuple[float, float, Counter[str]]:
    """Microseconds from the end of the wait for a step to the launch of the next pass, and from there to the next wait; and the
    calls of a step.
    """
    calls: list[tuple[str, float]] = []
    idle, busy = [], []
    with without_calls(lambda name: calls.append((name, time.perf_counter()))):
        for _ in range(_BLOCKS):
            calls.clear()
            solver.step(_STEPS)
            waits = [place for place, (name, _) in enumerate(calls) if name == "wait"]
            steps = [calls[wait : after + 1] for wait, after in itertools.pairwise(waits)]
            launches = [next(at for name, at in step if name == "graph") for step in steps]
            idle.append(statistics.median(at - step[0][1] for step, at in zip(steps, launches, strict=True)))
            busy.append(statistics.median(step[-1][1] - at for step, at in zip(steps, launches, strict=True)))
    return min(idle) * 1e6, min(busy) * 1e6, Counter(name for name, _ in steps[2][1:])


def measure(name: str, precision: str) -> str:
    """Return the row of a net."""
    solver = make_solver(name, precision, _SAMPLES, NETS[name][1])
    solver.step(4)  # memory is taken, the pass and the update are recorded
    with without_work():
        whole = step_us(solver)
        with without_calls(lambda _: None):
            own = step_us(solver)
        idle, busy, calls = parts_us(solver)
    solver.close()
    listed = ", ".join(f"{count} {call}" if count > 1 else call for call, count in calls.items())
    return f"| {name} | {len(solver.net.layers)} | {whole:.0f} | {own:.0f} | {idle:.0f} | {busy:.0f} | {listed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    lines = [
        "# What the host does for a recorded step, by the simulated GPU",
        "",
        describe(),
        f"- {options.precision}, microseconds a step; kernels and recordings do not run",
        "- 'all Python' has the simulation's in it, which is the difference from paratrain's; CuPy's real calls are in neither",
        "",
        "| net | layers | all Python | paratrain's | of that, the GPU idle | and the GPU at work | calls of CuPy |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name in options.nets.split(","):
        lines.append(measure(name, options.precision))
        print(lines[-1], flush=True)
    if options.save:
        Path(options.save).write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    sys.path[:0] = [str(REPOSITORY / "tests" / "simulated_gpu")]
    main()
