"""Time training steps of one rank and of several, each rank bound to a core of its own, with one thread and its own batch.

    python benchmarks/scaling.py --peer-python python --save benchmarks/results/scaling.md

A step is a whole one of the Solver: clear the gradients, forward, backward, exchange, SGD with momentum and weight decay. Data
and labels lie in memory and stay as they are, on both sides. Timed are:

- one rank, while the other cores have nothing to do;
- as many processes as ranks, which know nothing of each other: what sharing caches and memory costs, without any exchange;
- the ranks together;
- PyTorch, one process, and as many as ranks through DistributedDataParallel over gloo, in its plain and its channels-last
  layout, with fused SGD.

They take turns (A B A B ...), each turn in processes of its own. A turn's figure is the median over its steps, of the slowest
process. Scaling is the time of one rank over that of all together: 100% where the exchange and the neighbours cost nothing.
Tables have the minimum, median and maximum over turns; scaling is the median of the rounds' own ratios, with the
least and the largest of them. ``--peer-python`` names a Python that has torch; without it only paratrain is timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fed_net import fed_solver_parameter, feed
from machine import REPOSITORY, describe
from ranks import run_peers, run_ranks

NETS = REPOSITORY / "tests" / "golden" / "nets"
PEER = REPOSITORY / "benchmarks" / "peers" / "torch_scaling.py"
LAYOUTS = ("plain", "channels-last")


@dataclass(frozen=True)
class Case:
    """A net, and what is timed of it: `steps` in a turn, after `warm_steps`."""

    title: str
    batch: int
    shape: str
    warm_steps: int
    steps: int


CASES = {
    "lenet": Case("LeNet", 64, "1x28x28", 10, 80),
    "cifar10_quick": Case("CIFAR-10 quick", 100, "3x32x32", 4, 24),
    "caffenet": Case("CaffeNet", 16, "3x227x227", 2, 6),
}
Times = dict[str, list[float]]


def time_own_steps(options: argparse.Namespace) -> None:
    """Print, on rank 0, the milliseconds of a step of the slowest rank, and how gradients are exchanged."""
    from paratrain.comm import LocalCommunicator, create_communicator
    from paratrain.comm.environment import launcher_environment
    from paratrain.data_parallel import create_parallel_solver
    from paratrain.data_parallel.driver import DataParallel

    launcher = launcher_environment(os.environ)
    rank = launcher.rank if launcher is not None else 0
    os.sched_setaffinity(0, {options.cores[rank]})
    world = create_communicator()
    communicator = LocalCommunicator() if options.apart else world
    shape = [int(axis) for axis in options.shape.split("x")]
    parameter = fed_solver_parameter(options.worker, options.batch, shape)
    solver = create_parallel_solver(parameter, communicator, backend=options.backend, exchange=options.exchange)
    feed(solver.net, seed=world.rank + 1)
    moments: list[float] = []
    solver.after_update.append(lambda: moments.append(time.perf_counter()))
    solver.step(options.warm_steps)
    moments.clear()
    world.barrier()
    solver.step(options.steps + 1)  # the first of them begins with a broadcast, which the others do without
    found = statistics.median(after - before for before, after in itertools.pairwise(moments))
    found = max(world.allgather_objects(found))
    if world.rank == 0:
        way = solver.shares.description if isinstance(solver.shares, DataParallel) else ""
        print(json.dumps({"ms": found * 1e3, "way": way}))
    world.close()


def time_case(name: str, options: argparse.Namespace) -> tuple[Times, str, str]:
    """Return the milliseconds of every row and round; how gradients are exchanged; and the version of PyTorch."""
    case, size = CASES[name], options.ranks
    own = {"alone": (1, []), "apart": (size, ["--apart"]), "together": (size, [])}
    net = str(NETS / f"{name}.prototxt")
    sizes = [
        "--batch",
        str(options.batch or case.batch),
        "--shape",
        case.shape,
        "--steps",
        str(options.steps or case.steps),
    ]
    sizes += ["--warm-steps", str(case.warm_steps), "--cores", ",".join(map(str, options.cores))]
    times: Times = {}
    way = version = ""
    for _ in range(options.rounds):
        for row, (count, flags) in own.items():
            arguments = ["--worker", net, *sizes, "--backend", options.backend, "--exchange", options.exchange, *flags]
            found = json.loads(run_ranks(count, __file__, *arguments))
            times.setdefault(row, []).append(found["ms"])
            way = found["way"] or way
        for count in (1, size) if options.peer_python else ():
            found = json.loads(run_peers(options.peer_python, count, PEER, net, *sizes))
            version = found["version"]
            for layout, milliseconds in found["ms"].items():
                times.setdefault(f"{layout} {'alone' if count == 1 else 'together'}", []).append(milliseconds)
    return times, way, version


def by_round(times: Times, row: str, other: str, compare: Callable[[float, float], float]) -> list[float]:
    """`compare` the times of two rows, round by round."""
    return [compare(time, other_time) for time, other_time in zip(times[row], times[other], strict=True)]


def percent(shares: Iterable[float]) -> str:
    """Median, least and largest, in percent."""
    found = [100 * share for share in shares]
    return f"{statistics.median(found):.1f}% ({min(found):.1f} to {max(found):.1f})"


def scaling(times: Times, row: str, one: str) -> str:
    return percent(by_round(times, row, one, lambda together, alone: alone / together))


def table(times: Times, size: int) -> list[str]:
    rows = {
        "alone": ("paratrain, 1 rank", ""),
        "apart": (f"paratrain, {size} processes that exchange nothing", "alone"),
        "together": (f"paratrain, {size} ranks", "alone"),
    }
    for layout in LAYOUTS:
        rows[f"{layout} alone"] = (f"PyTorch, {layout}, 1 process", "")
        rows[f"{layout} together"] = (f"PyTorch, {layout}, {size} processes", f"{layout} alone")
    lines = ["| | min ms | median ms | max ms | scaling |", "|---|---|---|---|---|"]
    for row, (title, one) in rows.items():
        if row in times:
            found = times[row]
            ratio = scaling(times, row, one) if one else ""
            lines.append(
                f"| {title} | {min(found):.2f} | {statistics.median(found):.2f} | {max(found):.2f} | {ratio} |"
            )
    return lines


def exchange_cost(times: Times, one: str) -> str:
    """What a step of all ranks takes longer than that of `one`, in milliseconds and as a share of the step."""
    more_ms = statistics.median(by_round(times, "together", one, lambda together, alone: together - alone))
    return f"{more_ms:.2f} ms, " + percent(
        by_round(times, "together", one, lambda together, alone: 1 - alone / together)
    )


def summary(title: str, times: Times) -> str:
    cells = [
        title,
        scaling(times, "together", "alone"),
        scaling(times, "together", "apart"),
        exchange_cost(times, "alone"),
    ]
    if "plain together" in times:
        layout = min(LAYOUTS, key=lambda layout: statistics.median(times[f"{layout} together"]))
        peer = scaling(times, f"{layout} together", f"{layout} alone")
        ratio = statistics.median(times["together"]) / statistics.median(times[f"{layout} together"])
        cells += [f"{peer}, {layout}", f"{ratio:.2f}"]
    return f"| {' | '.join(cells)} |"


def report(options: argparse.Namespace) -> str:
    """Time everything; return the text of the report."""
    size = options.ranks
    heads = [
        "",
        "scaling, from 1 rank alone",
        f"from {size} processes apart",
        f"{size} ranks' step less 1 rank's, and its share",
    ]
    summaries, tables, version = [], [], ""
    begin = time.perf_counter()
    for name in options.nets.split(","):
        times, way, version = time_case(name, options)
        title = f"{CASES[name].title}, batch {options.batch or CASES[name].batch}"
        summaries.append(summary(title, times))
        tables += ["", f"## {title} for each rank", "", f"Exchange: {way}.", "", *table(times, size), ""]
        tables.append(f"A step of {size} ranks less that of 1 rank: {exchange_cost(times, 'alone')} of the step;")
        tables.append(f"less that of processes that exchange nothing: {exchange_cost(times, 'apart')}.")
    if version:
        heads += ["DistributedDataParallel's scaling, in its faster layout", "paratrain's step over its"]
    lines = [
        f"# From 1 rank to {size}, each on one core with one thread and its own batch",
        "",
        describe("mpi4py", "mpich"),
    ]
    lines += [f"- PyTorch {version}"] if version else []
    lines.append(f"- backend {options.backend}; {options.rounds} rounds; cores {', '.join(map(str, options.cores))}")
    print(f"{time.perf_counter() - begin:.0f} s for all of it")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *summaries]
    return "\n".join([*lines, *tables])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(CASES), help="divided by commas (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="how many, on as many cores (default: 2)")
    parser.add_argument("--backend", default="onednn", help="onednn or numpy")
    parser.add_argument("--exchange", default="auto", help="auto (default), tree, sharded, ring or mpi")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    parser.add_argument("--batch", type=int, help="records of each rank, instead of the net's own number")
    parser.add_argument("--steps", type=int, help="timed steps of one turn, instead of the net's own number")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the tables to this file")
    parser.add_argument("--worker", metavar="NET", help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--warm-steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        options.cores = [int(core) for core in options.cores.split(",")]
        time_own_steps(options)
        return
    options.cores = sorted(os.sched_getaffinity(0))[: options.ranks]
    if len(options.cores) < options.ranks:
        parser.error(f"{options.ranks} ranks need as many cores, and this machine lends {len(options.cores)}")
    text = report(options)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
