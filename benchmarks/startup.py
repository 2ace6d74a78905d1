"""Time how long Python and paratrain take to start, up to the end of a training run's first step.

    python benchmarks/startup.py --runs 15 --save benchmarks/results/startup.md

Each line is a new process, from its start to its end; the lines take turns. Training is LeNet with 64 digits a batch, from an
LMDB, on one rank. Modules are compiled before the first counted run, as an installation does.
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

from machine import REPOSITORY, describe

from paratrain.tools.mnist import write_database

DIGITS = tuple(REPOSITORY / "tests" / "data" / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
SOLVER = """
net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 1 display: 1 random_seed: 1
snapshot_after_train: false snapshot_prefix: "lenet" solver_mode: CPU test_iter: 100 test_interval: 500
"""
WITHOUT_TEST = "test_initialization: false"


def prepare(folder: Path) -> dict[str, list[str]]:
    """Write data, net and solvers; return the commands by what they do."""
    for name, start, stop in (("train", 0, 8000), ("test", 8000, 10000)):
        write_database(*DIGITS, folder / f"mnist_{name}_lmdb", start, stop)
    net = (REPOSITORY / "examples" / "mnist" / "lenet_train_test.prototxt").read_text()
    (folder / "net.prototxt").write_text(re.sub("examples/mnist/", "", net))
    (folder / "tested.prototxt").write_text(SOLVER)
    (folder / "solver.prototxt").write_text(SOLVER + WITHOUT_TEST)
    train = ["-m", "paratrain", "train"]
    return {
        "Python alone": ["-c", "pass"],
        "import numpy": ["-c", "import numpy"],
        "import paratrain": ["-c", "import paratrain"],
        "import paratrain as caffe; caffe.Net": ["-c", "import paratrain as caffe; caffe.Net"],
        "import paratrain.launch.train": ["-c", "import paratrain.launch.train"],
        "paratrain train, one step of LeNet": [*train, "solver.prototxt"],
        "the same after a test of 100 batches of 100": [*train, "tested.prototxt"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="counted runs of each line")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = prepare(folder)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times: dict[str, list[float]] = {what: [] for what in commands}
        for number in range(options.runs + 1):
            for what, command in commands.items():
                begin = time.perf_counter()
                done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True,
                                      text=True, check=False)  # fmt: skip
                taken_s = time.perf_counter() - begin
                if done.returncode or ("train" in command and "Optimization Done" not in done.stderr):
                    sys.exit(f"{what} failed:\n{done.stderr}")
                if number:  # the first compiles modules and brings files into memory
                    times[what].append(taken_s)
    rows = [f"| {what} | {min(s):.3f} | {statistics.median(s):.3f} | {max(s):.3f} |" for what, s in times.items()]
    head = ["# Starting", "", describe(), "", f"Seconds of a whole process, {options.runs} runs.", ""]
    text = "\n".join([*head, "| | min | median | max |", "|---|---|---|---|", *rows])
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
