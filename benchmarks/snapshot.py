"""Measure how long a snapshot holds training up.

    python benchmarks/snapshot.py --values 20000000 --save results/snapshot.md

A net of one large InnerProduct is trained with momentum, so that a snapshot holds its weights and as many values of
history. Iterations are timed one by one: those that begin a snapshot, those during which its files are written, and the
others, which are counted once the disk is at rest. Beside them stands what it takes to copy the same arrays in memory,
which is the least that a snapshot of one moment can take, and what it takes until the files are on the disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe

from paratrain.backends import create_backend
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import Solver, create_solver

INPUT_COUNT = 1000
NET = """
layer {{ name: "data" type: "DummyData" top: "x" top: "target"
  dummy_data_param {{ shape {{ dim: {batch} dim: {input_count} }} shape {{ dim: {batch} dim: {output_count} }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param {{ num_output: {output_count} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }}
"""


def create(options: argparse.Namespace, prefix: str) -> Solver:
    output_count = max(1, options.values // (INPUT_COUNT + 1))
    net = NET.format(batch=options.batch, input_count=INPUT_COUNT, output_count=output_count)
    parameter = SolverParameter(
        base_lr=1e-6, lr_policy="fixed", momentum=0.9, max_iter=1 << 30, net_param=parse_prototxt(net, NetParameter),
        random_seed=1, snapshot_prefix=prefix, snapshot_after_train=False,
        snapshot_format=SolverParameter.HDF5 if options.hdf5 else SolverParameter.BINARYPROTO,
    )  # fmt: skip
    return create_solver(parameter, backend=create_backend("numpy"), seed=1)


def time_step(solver: Solver) -> float:
    begin = time.perf_counter()
    solver.step(1)
    return (time.perf_counter() - begin) * 1e3


def time_copy(solver: Solver) -> float:
    """The milliseconds that copying parameters and history takes, into new memory as a snapshot does."""
    arrays = [blob.data for blobs in solver.net.params.values() for blob in blobs]
    begin = time.perf_counter()
    kept = [np.array(values, copy=True) for values in arrays * 2]  # the history is as large
    taken_s = time.perf_counter() - begin
    del kept
    return taken_s * 1e3


def measure(options: argparse.Namespace, prefix: str) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {
        name: []
        for name in (
            "an iteration", "an iteration with a snapshot", "an iteration while files are written", "copying the arrays",
            "until the files are there",
        )
    }  # fmt: skip
    plain, begins, beside, copying, written = rows.values()
    solver = create(options, prefix)
    solver.keeper.keep = 2
    for _ in range(3):
        time_step(solver)
    for _ in range(options.rounds):
        plain += [time_step(solver) for _ in range(options.iters)]
        copying.append(time_copy(solver))
        begin = time.perf_counter()
        solver.parameter.snapshot = solver.iter + 1  # due after the next iteration, and then not for as many
        begins.append(time_step(solver))
        solver.parameter.snapshot = 0
        names = solver.keeper.names(solver.iter)
        while not Path(names.training).exists():
            beside.append(time_step(solver))
        solver.keeper.wait()
        written.append((time.perf_counter() - begin) * 1e3)
    solver.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10_000_000, help="values in the weights (default: 10 million)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--iters", type=int, default=10, help="iterations between snapshots (default: 10)")
    parser.add_argument("--rounds", type=int, default=7, help="snapshots (default: 7)")
    parser.add_argument("--hdf5", action="store_true", help="snapshot_format: HDF5")
    parser.add_argument("--folder", help="where the snapshots go: the disk to measure (default: the temporary folder)")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(options, f"{folder}/net")
    lines = [
        f"# Snapshots of {options.values:,} values and as many of history{', HDF5' * options.hdf5}",
        "",
        describe(),
        "",
    ]
    lines += ["| | count | min ms | median ms | max ms |", "|---|---|---|---|---|"]
    for name, times in rows.items():
        cells = (f"{value:.1f}" for value in (min(times), statistics.median(times), max(times))) if times else "---"
        lines.append(f"| {name} | {len(times)} | {' | '.join(cells)} |")
    plain, begins, _, copying, _ = (statistics.median(times) if times else 0.0 for times in rows.values())
    lines += [
        "",
        f"A snapshot holds training up for {begins - plain:.1f} ms, {(begins - plain) / copying:.2f} times a copy.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
