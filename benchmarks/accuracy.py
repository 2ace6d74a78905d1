"""Train LeNet on MNIST's test digits, 8,000 to train and 2,000 to test, and print its accuracy on the way.

    python benchmarks/accuracy.py [--ranks 1] [--iterations 1000] [--save FILE]

The digits are those of ``tests/data``; the solver is Caffe's of old for LeNet: base_lr 0.01, inv, momentum 0.9, effective
batch 64. With ``--ranks`` the run is started under mpirun, each rank with its part of the batch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import REPOSITORY, describe

SOLVER = """net: "net.prototxt" test_iter: 20 test_interval: {interval} base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75
momentum: 0.9 weight_decay: 0.0005 display: 100 max_iter: {iterations} snapshot_prefix: "lenet" random_seed: 1
solver_mode: CPU
"""


def write_databases(folder: Path) -> None:
    """Write mnist_train_lmdb and mnist_test_lmdb."""
    sys.path.insert(0, str(REPOSITORY))
    from paratrain.tools.mnist import write_database

    digits = [REPOSITORY / "tests" / "data" / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    write_database(digits[0], digits[1], folder / "mnist_train_lmdb", 0, 8000)
    write_database(digits[0], digits[1], folder / "mnist_test_lmdb", 8000, 10000)


def prepare(folder: Path, ranks: int, iterations: int) -> None:
    """Write databases, net and solver."""
    write_databases(folder)
    net = (REPOSITORY / "examples" / "mnist" / "lenet_train_test.prototxt").read_text()
    net = net.replace("examples/mnist/", "").replace("batch_size: 64", f"batch_size: {64 // ranks}")
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(SOLVER.format(interval=100, iterations=iterations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    if 64 % options.ranks:
        parser.error(f"a batch of 64 cannot be shared by {options.ranks} ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "paratrain", "train", "solver.prototxt", "--metrics", "metrics.jsonl"]
    if options.ranks > 1:
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(options.ranks), *command]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, options.ranks, options.iterations)
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        elapsed_s = time.perf_counter() - begin
        if done.returncode:
            sys.exit(done.stderr)
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    tests = {record["iteration"]: record["outputs"]["accuracy"] for record in records if "test_net" in record}
    lines = [f"# LeNet on 8,000 digits of MNIST, {options.ranks} rank(s), one thread each", "", describe(), ""]
    lines += [
        f"- {options.iterations} iterations, tests included: {elapsed_s:.0f} s; peak memory of a rank: {peak_mb:.0f} MB"
    ]
    lines += ["", "| iteration | accuracy on 2,000 other digits |", "|---|---|"]
    lines += [f"| {iteration} | {100 * accuracy:.2f}% |" for iteration, accuracy in tests.items()]
    text = "\n".join(lines)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
