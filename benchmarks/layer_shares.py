"""Show where the time of training steps on the CPU goes: by types of layers, the update, and the rest.

    python benchmarks/layer_shares.py --save benchmarks/results/layer_shares.md

Nets, batches and steps are those of ``cpu_steps.py``. Times are medians over steps, on one thread. What a ReLU, BatchNorm or
Scale does that is computed together with the layer before counts as that layer's. "Outside layers" is what is left of the
step: the solver's and the net's own Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpu_steps import NETS
from fed_net import fed_solver_parameter, feed
from machine import REPOSITORY, describe

_LEAST_SHARE = 0.01


def measure(name: str, backend: str) -> tuple[float, dict[str, float]]:
    """Return the median milliseconds of a step, and those of each part of it."""
    from paratrain.backends import create_backend
    from paratrain.solvers import NetOptions, create_solver

    batch, shape, iters = NETS[name]
    net_path = REPOSITORY / "tests" / "golden" / "nets" / f"{name}.prototxt"
    parameter = fed_solver_parameter(net_path, batch, [int(axis) for axis in shape.split("x")])
    solver = create_solver(
        parameter, backend=create_backend(backend), seed=1, net_options=NetOptions(plans_memory=True)
    )
    feed(solver.net, seed=1)
    solver.step(3)
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[part] += time.perf_counter() - begin

        return run

    for layer in solver.net.layers:
        for method in ("forward", "backward"):
            setattr(layer, method, timed(layer.type, getattr(layer, method)))
    solver.flat_update.update = timed("update", solver.flat_update.update)  # type: ignore[method-assign]
    steps: list[float] = []
    parts: dict[str, list[float]] = defaultdict(list)
    for _ in range(max(iters, 5)):
        spent.clear()
        begin = time.perf_counter()
        solver.step(1)
        steps.append(time.perf_counter() - begin)
        spent["outside layers"] = steps[-1] - sum(spent.values())
        for part, seconds in spent.items():
            parts[part].append(seconds)
    return statistics.median(steps) * 1e3, {part: statistics.median(found) * 1e3 for part, found in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--backend", default="onednn")
    parser.add_argument("--save", help="also write the tables to this file")
    options = parser.parse_args()
    text = "\n".join(["# Where the time of a training step goes, one thread", "", describe()])
    print(text)
    for name in options.nets.split(","):
        step_ms, parts = measure(name, options.backend)
        lines = ["", f"## {name}, batch {NETS[name][0]}: {step_ms:.1f} ms", "", "| | ms | share |", "|---|---|---|"]
        for part, part_ms in sorted(parts.items(), key=lambda item: -item[1]):
            if part_ms >= _LEAST_SHARE * step_ms:
                lines.append(f"| {part} | {part_ms:.2f} | {part_ms / step_ms:.1%} |")
        print("\n".join(lines), flush=True)
        text += "\n" + "\n".join(lines)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    # Before anything loads a library that starts threads.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    main()
