"""Time the exchange of gradients and the update after it between ranks of one node, beside gloo and MPI's Allreduce.

    python benchmarks/exchange.py --peer-python python --save benchmarks/results/exchange.md

A turn begins when all ranks have their gradients, and ends when all have the updated parameters: sum over ranks, division
by their number, SGD with momentum 0.9 and weight decay 0.0005. Gradients are put back between two turns, outside the time.
The peer is ``torch.distributed`` with gloo, allreduce in one piece and in DistributedDataParallel's buckets of 25 MB, and
PyTorch's own SGD after it. All run one thread per rank, and take turns. Beside them stands the bandwidth with which as many
processes as ranks copy at the same time: reading parameter, history and the gradients of two ranks, and writing two of them
back, moves 24 bytes for each parameter with 2 ranks.

Printed are the minimum, median and maximum over turns of each turn's median.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import REPOSITORY, describe

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_exchange.py"
COUNTS = {"60 M parameters": 60_000_000, "LeNet's 431,080 parameters": 431_080}


def time_own_exchange(exchange: str, count: int, iters: int, backend: str) -> None:
    """Print, on rank 0, the median milliseconds of exchange and update."""
    import numpy as np

    from paratrain.comm import create_communicator
    from paratrain.data_parallel import create_parallel_solver
    from paratrain.proto import NetParameter, SolverParameter
    from paratrain.solvers.step import update_together

    net = NetParameter(name="parameters")
    layer = net.layer.add(name="parameter", type="Parameter", top=["parameter"])
    layer.parameter_param.shape.dim.append(count)
    parameter = SolverParameter(
        base_lr=1e-3, lr_policy="fixed", momentum=0.9, weight_decay=5e-4, max_iter=1 << 30, net_param=net, random_seed=1,
        snapshot_after_train=False,
    )  # fmt: skip
    communicator = create_communicator()
    solver = create_parallel_solver(parameter, communicator, backend=backend, exchange=exchange)
    gradient = np.random.default_rng(communicator.rank).standard_normal(count, np.float32)
    diff = solver.net.parameters.diff.mutable_host()
    times = []
    for _ in range(iters + 2):
        for callback in solver.callbacks:
            callback.on_start()
        diff[...] = gradient
        communicator.barrier()
        begin = time.perf_counter()
        for callback in solver.callbacks:
            callback.on_gradient_ready()
        update_together(solver, solver.lr, is_displayed=False)
        times.append(time.perf_counter() - begin)
        solver.iter += 1
    if communicator.rank == 0:
        print(statistics.median(times[2:]) * 1e3)
    communicator.close()


def time_copies(iters: int) -> None:
    """Print, on rank 0, the bytes a second that all ranks together read and write while all of them copy."""
    import numpy as np

    from paratrain.comm import create_communicator

    communicator = create_communicator()
    source, target = np.ones(30_000_000, np.float32), np.empty(30_000_000, np.float32)
    times = []
    for _ in range(iters + 2):
        communicator.barrier()
        begin = time.perf_counter()
        np.copyto(target, source)
        communicator.barrier()
        times.append(time.perf_counter() - begin)
    if communicator.rank == 0:
        print(2 * source.nbytes * communicator.size / statistics.median(times[2:]))
    communicator.close()


def run_ranks(size: int, *arguments: str) -> float:
    mpirun = Path(sys.executable).with_name("mpirun")
    launcher = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    assert launcher, "mpirun is not there; install paratrain[mpi]"
    done = subprocess.run(
        [launcher, "-n", str(size), sys.executable, __file__, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def run_peer(python: str, size: int, arguments: list[str]) -> tuple[float, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [python, str(PEER), *arguments],
            env=environment()
            | {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("the peer failed")
    _, whole, version = outputs[0].split()
    return float(whole), version


def environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return os.environ | dict.fromkeys(names, "1") | {"PYTHONPATH": path}


def compare(title: str, count: int, options: argparse.Namespace) -> tuple[list[str], str]:
    size, sizes = options.ranks, ["--count", str(count), "--iters", str(options.iters)]
    times: dict[str, list[float]] = {}
    version = ""
    for _ in range(options.rounds):
        for exchange in options.exchanges.split(","):
            found = run_ranks(size, "--worker", exchange, "--backend", options.backend, *sizes)
            times.setdefault(f"paratrain, {exchange}", []).append(found)
        if options.peer_python:
            for form in ("fused", "foreach"):
                for name, flags in (("", []), (", buckets", ["--buckets"])):
                    found, version = run_peer(options.peer_python, size, [*sizes, "--form", form, *flags])
                    times.setdefault(f"gloo{name}, {form} SGD", []).append(found)
    own = min(statistics.median(found) for name, found in times.items() if name.startswith("paratrain"))
    lines = ["", f"## {title}", "", "| | min ms | median ms | max ms | over our best |", "|---|---|---|---|---|"]
    for name, found in times.items():
        median = statistics.median(found)
        lines.append(f"| {name} | {min(found):.2f} | {median:.2f} | {max(found):.2f} | {median / own:.2f} |")
    if count > 1_000_000:
        bandwidth = statistics.median(run_ranks(size, "--copies", *sizes) for _ in range(options.rounds))
        floor = 1e3 * (16 + 4 * size) * count / bandwidth
        lines += [
            "",
            f"{size} ranks copy at {bandwidth / 1e9:.1f} GB/s (reading and writing counted); {16 + 4 * size} bytes for each "
            f"parameter take {floor:.1f} ms at that rate, and our best {own / floor:.2f} times as long.",
        ]
    return lines, version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--exchanges", default="tree,sharded,ring,mpi")
    parser.add_argument("--backend", default="onednn", help="whose update follows the exchange: onednn or numpy")
    parser.add_argument("--iters", type=int, default=10, help="timed exchanges of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the tables to this file")
    parser.add_argument("--worker", metavar="EXCHANGE", help=argparse.SUPPRESS)
    parser.add_argument("--copies", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.copies:
        time_copies(options.iters)
        return
    if options.worker:
        time_own_exchange(options.worker, options.count, options.iters, options.backend)
        return
    tables, version = [], ""
    for title, count in COUNTS.items():
        lines, version = compare(title, count, options)
        tables += lines
    head = [
        f"# Exchange and SGD update, {options.ranks} ranks of one thread on one node",
        "",
        describe("mpi4py", "mpich"),
    ]
    text = "\n".join([*head, *([f"- PyTorch {version}"] if version else []), *tables])
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
