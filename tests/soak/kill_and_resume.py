"""Kill training runs with SIGKILL at random moments, resume them, and compare the end with a run that was never stopped.

    python -m tests.soak.kill_and_resume --count 10 --save table.md

For each type of solver and each number of ranks one run is killed ``--count`` times, all its ranks at once, and taken up
each time with ``--resume auto``. It draws from a shuffled HDF5 file and uses dropout and BatchNorm, and snapshots often. The
weights and the solver's state it ends with must be those of the uninterrupted run, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil

from paratrain.snapshot import find_newest, read_training_state, training_name
from tests.integration.cli import COMMAND, ENVIRONMENT

TYPES = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.9",
    "AdaGrad": "",
    "RMSProp": "rms_decay: 0.95",
    "AdaDelta": "momentum: 0.95 delta: 1e-6",
    "Adam": "momentum: 0.9 momentum2: 0.999",
    "AdamW": "momentum: 0.9 momentum2: 0.999 weight_decay: 0.01",
}
NET = """
name: "soak"
layer { name: "rows" type: "HDF5Data" top: "x" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 5 shuffle: true } }
layer { name: "wide" type: "InnerProduct" bottom: "x" top: "wide"
  inner_product_param { num_output: 200 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "wide" top: "wide" }
layer { name: "scale" type: "Scale" bottom: "wide" top: "wide" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "wide" top: "wide" }
layer { name: "drop" type: "Dropout" bottom: "wide" top: "wide" }
layer { name: "last" type: "InnerProduct" bottom: "wide" top: "last"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" type: "{type}" base_lr: 0.001 lr_policy: "inv" gamma: 0.001 power: 0.75 {settings}
random_seed: 1 solver_mode: CPU max_iter: {last} snapshot: {every} snapshot_prefix: "net"
"""
RECORD_COUNT = 61  # a prime: no batch divides an epoch
_START_S = 120.0
_LONGEST_S = 0.5  # from the first new snapshot to the kill: many iterations


@dataclass(frozen=True)
class Result:
    """What was seen of one type of solver on one number of ranks."""

    solver_type: str
    rank_count: int
    killed_at: Sequence[int]
    """The iteration of the newest good snapshot after each kill; later ones were lost, and trained again."""
    last: int
    is_same: bool
    wall_s: float


def soak(folder: Path, solver_type: str, rank_count: int, count: int, rng: random.Random, mpirun: str) -> Result:
    """Kill a run in ``folder`` ``count`` times and finish it; compare it with an uninterrupted one."""
    begin = time.perf_counter()
    killed, straight = folder / "killed", folder / "straight"
    for place in (killed, straight):
        place.mkdir(parents=True)
        _write_files(place)
    launcher = [] if rank_count == 1 else [mpirun, "-n", str(rank_count)]
    command = [*launcher, *COMMAND, "train", "solver.prototxt"]
    _write_solver(killed, solver_type, last=10**7, every=3)
    iterations = [_kill_one([*command, "--resume", "auto", "--keep", "2"], killed, rng) for _ in range(count)]
    last = (iterations[-1] if iterations else 0) + rng.randint(4, 9)
    for place, options in ((killed, ["--resume", "auto"]), (straight, [])):
        _write_solver(place, solver_type, last=last, every=0)
        done = subprocess.run(
            [*command, *options], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{solver_type}, {rank_count} ranks, in {place.name}: {done.stderr[-3000:]}"
    names = [f"net_iter_{last}.{kind}" for kind in ("caffemodel", "solverstate")]
    is_same = all(_sum(killed / name) == _sum(straight / name) for name in names)
    return Result(solver_type, rank_count, iterations, last, is_same, time.perf_counter() - begin)


def _kill_one(command: list[str], folder: Path, rng: random.Random) -> int:
    """Start or resume the run and kill all ranks some time after a new snapshot; return the newest good iteration."""
    before = _newest(folder)
    with tempfile.TemporaryFile() as errors:
        run = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=errors, stderr=errors, start_new_session=True
        )
        try:
            deadline = time.monotonic() + _START_S
            while run.poll() is None and time.monotonic() < deadline and _latest_trainstate(folder) <= before:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, _LONGEST_S))
            is_over = run.poll() is not None
        finally:
            _kill_all(run)
        errors.seek(0)
        assert not is_over, f"the run has ended by itself: {errors.read().decode()[-3000:]}"
        now = _newest(folder)
        errors.seek(0)
        assert now > before, (
            f"no snapshot after iteration {before} in {_START_S:.0f} s: {errors.read().decode()[-3000:]}"
        )
    return now


def _kill_all(run: subprocess.Popen[bytes]) -> None:
    """SIGKILL the ranks at once, the launcher after them; return when all are gone."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    for process in reversed(below):  # the ranks come last
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    if run.poll() is None:
        os.kill(run.pid, signal.SIGKILL)
    run.wait()
    psutil.wait_procs(below, timeout=30)


def _latest_trainstate(folder: Path) -> int:
    found = (path.name.removesuffix(".trainstate").rpartition("_")[2] for path in folder.glob("net_iter_*.trainstate"))
    return max(map(int, found), default=0)


def _newest(folder: Path) -> int:
    newest = find_newest(str(folder / "net"))
    return 0 if newest is None else read_training_state(training_name(newest)).iteration


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_files(folder: Path) -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((RECORD_COUNT, 50)).astype(np.float32)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"], file["label"] = rows, rows[:, :3].argmax(axis=1).astype(np.float32)
    (folder / "rows.txt").write_text("rows.h5\n")
    (folder / "net.prototxt").write_text(NET)


def _write_solver(folder: Path, solver_type: str, *, last: int, every: int) -> None:
    text = SOLVER.format(type=solver_type, settings=TYPES[solver_type], last=last, every=every)
    (folder / "solver.prototxt").write_text(text)


def table(results: Sequence[Result]) -> str:
    """The results as a table."""
    lines = ["| solver | ranks | kills | at iterations | compared at | bytes | s |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {result.solver_type} | {result.rank_count} | {len(result.killed_at)} | {' '.join(map(str, result.killed_at))} | "
        f"{result.last} | {'the same' if result.is_same else 'DIFFERENT'} | {result.wall_s:.0f} |"
        for result in results
    ]
    return "\n".join(lines)


def main() -> int:
    """Do what the command line says; return 1 where a run ended with other bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="kills of each run (default: 10)")
    parser.add_argument("--types", default=",".join(TYPES), help="types of solvers (default: all)")
    parser.add_argument("--ranks", default="1,2,3", help="numbers of ranks (default: 1,2,3)")
    parser.add_argument("--seed", type=int, default=None, help="decides the moments; drawn and printed where left out")
    parser.add_argument("--mpirun", default="mpirun", help="the launcher (default: mpirun)")
    parser.add_argument("--save", metavar="FILE", help="write the table to FILE, too")
    arguments = parser.parse_args()
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    rng, results = random.Random(seed), []
    sys.stdout.write(f"seed {seed}\n")
    for solver_type in arguments.types.split(","):
        for rank_count in map(int, arguments.ranks.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                results.append(soak(Path(folder), solver_type, rank_count, arguments.count, rng, arguments.mpirun))
            sys.stdout.write(f"{table(results[-1:]).splitlines()[-1]}\n")
            sys.stdout.flush()
            if arguments.save:  # what there is, should a later one fail
                Path(arguments.save).write_text(f"# Killed and resumed (seed {seed})\n\n{table(results)}\n")
    sys.stdout.write(f"\n{table(results)}\n")
    return 0 if all(result.is_same for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
