"""Time the exchange of gradients and the update after it between ranks of one node, beside gloo and MPI's Allreduce.

    python benchmarks/exchange.py --peer-python python --save benchmarks/results/exchange.md

A turn begins when all ranks have their gradients, and ends when all have the updated parameters: sum over ranks, division
by their number, SGD with momentum 0.9 and weight decay 0.0005. Gradients are put back between two turns, outside the time.
The peer is ``torch.distributed`` with gloo, allreduce in one piece and in DistributedDataParallel's buckets of 25 MB, and
PyTorch's own SGD after it. All run one thread per rank, and take turns.

Both are timed without the update as well, as the exchange alone: gradients go to their owners, who average them, and the
owners' parameters, as they are, to all ranks; where these lie in shared memory, nothing has to move. Allreduce leaves the
averages of all gradients with every rank instead.

Beside them stands the bandwidth with which as many processes as ranks copy at the same time: reading parameter, history and
the gradients of two ranks, and writing two of them back, moves 24 bytes for each parameter with 2 ranks.

Printed are the minimum, median and maximum over turns of each turn's median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from machine import REPOSITORY, describe
from ranks import run_peers, run_ranks

if TYPE_CHECKING:
    from paratrain.solvers import Solver

Times = dict[str, list[float]]
PEER = REPOSITORY / "benchmarks" / "peers" / "torch_exchange.py"
COUNTS = {"60 M parameters": (60_000_000, 1), "LeNet's 431,080 parameters": (431_080, 20)}
"""How many parameters, and how many times the timed exchanges of a turn that were asked for."""


def time_own_exchange(exchange: str, count: int, iters: int, backend: str) -> None:
    """Print, on rank 0, the slowest rank's median milliseconds of the exchange alone, and of exchange and update."""
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

    def median_ms(finish: Callable[[], object]) -> float:
        times = []
        for _ in range(iters + 2):
            for callback in solver.callbacks:
                callback.on_start()
            diff[...] = gradient
            communicator.barrier()
            begin = time.perf_counter()
            for callback in solver.callbacks:
                callback.on_gradient_ready()
            finish()
            times.append(time.perf_counter() - begin)
            solver.iter += 1
        slowest: float = max(communicator.allgather_objects(statistics.median(times[2:])))
        return slowest * 1e3

    alone_ms = median_ms(lambda: exchange_alone(solver))
    whole_ms = median_ms(lambda: update_together(solver, solver.lr, is_displayed=False))
    if communicator.rank == 0:
        print(alone_ms, whole_ms)
    communicator.close()


def exchange_alone(solver: Solver) -> None:
    """Do what :func:`paratrain.solvers.step.update_together` does, without the update and without agreeing about it."""
    import numpy as np

    from paratrain.solvers.runs import PIECE_COUNT, add_in_order

    shares, diff = solver.shares, solver.net.parameters.diff.mutable_host()
    scratch = np.empty(PIECE_COUNT, np.float32)

    def sum_part(start: int, stop: int) -> bool:
        """Make the mean where the exchange leaves it to the update."""
        for begin in range(start, stop, PIECE_COUNT) if shares.gradients else ():
            piece = slice(begin, min(begin + PIECE_COUNT, stop))
            gradients = [gradient[piece] for gradient in shares.gradients or ()]
            add_in_order(gradients, scratch[: piece.stop - piece.start], diff[piece], np)
            np.multiply(diff[piece], shares.gradient_scale, out=diff[piece])
        return True

    if shares.is_spread or solver.root_solver:
        shares.update(sum_part)
    shares.spread()


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


def compare(title: str, count: int, iters: int, options: argparse.Namespace) -> tuple[list[str], str]:
    """Return the lines of the tables, and the version of PyTorch."""
    size, sizes = options.ranks, ["--count", str(count), "--iters", str(iters)]
    alone: Times = {}
    whole: Times = {}
    version = ""
    for _ in range(options.rounds):
        for exchange in options.exchanges.split(","):
            printed = run_ranks(size, __file__, "--worker", exchange, "--backend", options.backend, *sizes)
            alone_ms, whole_ms = map(float, printed.split())
            alone.setdefault(f"paratrain, {exchange}", []).append(alone_ms)
            whole.setdefault(f"paratrain, {exchange}", []).append(whole_ms)
        for form in ("fused", "foreach") if options.peer_python else ():
            for name, flags in (("gloo", []), ("gloo, buckets", ["--buckets"])):
                printed = run_peers(options.peer_python, size, PEER, *sizes, "--form", form, *flags)
                *milliseconds, version = printed.split()
                alone_ms, whole_ms = map(float, milliseconds)
                alone.setdefault(name, []).append(alone_ms)
                whole.setdefault(f"{name}, {form} SGD", []).append(whole_ms)
    lines, own = table(f"{title}, exchange and update", whole)
    if count > 1_000_000:
        copies = [float(run_ranks(size, __file__, "--copies", *sizes)) for _ in range(options.rounds)]
        bandwidth = statistics.median(copies)
        floor = 1e3 * (16 + 4 * size) * count / bandwidth
        lines += [
            "",
            f"{size} ranks copy at {bandwidth / 1e9:.1f} GB/s (reading and writing counted); {16 + 4 * size} bytes for each "
            f"parameter take {floor:.1f} ms at that rate, and our best {own / floor:.2f} times as long.",
        ]
    return [*lines, *table(f"{title}, exchange alone", alone)[0]], version


def table(title: str, times: Times) -> tuple[list[str], float]:
    """Return the lines of a table, and the milliseconds of our best."""
    own = min(statistics.median(found) for name, found in times.items() if name.startswith("paratrain"))
    lines = ["", f"## {title}", "", "| | min ms | median ms | max ms | over our best |", "|---|---|---|---|---|"]
    for name, found in times.items():
        median = statistics.median(found)
        lines.append(f"| {name} | {min(found):.2f} | {median:.2f} | {max(found):.2f} | {median / own:.2f} |")
    return lines, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--exchanges", default="tree,sharded,ring,mpi")
    parser.add_argument("--backend", default="onednn", help="whose update follows the exchange: onednn or numpy")
    parser.add_argument(
        "--iters", type=int, default=10, help="timed exchanges of one turn; of small ones 20 times as many"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--only", default="", help="time only what has this in its title: LeNet, or 60 M")
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
    for title, (count, times) in COUNTS.items():
        if options.only in title:
            lines, version = compare(title, count, times * options.iters, options)
            tables += lines
            print("\n".join(lines), flush=True)
    head = [
        f"# Exchange and SGD update, {options.ranks} ranks of one thread on one node",
        "",
        describe("mpi4py", "mpich"),
    ]
    print("\n".join(head))
    text = "\n".join([*head, *([f"- PyTorch {version}"] if version else []), *tables])
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
