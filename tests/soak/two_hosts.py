"""Train on two hosts of two ranks each and count what goes over the link between them; then cut the link.

    scripts/soak/two_hosts [--exchanges tree,sharded,ring,mpi] [--repeats 3] [--cut tree,sharded] [--save FILE]

The hosts are network namespaces of this machine with a link of 1 Gbit/s, so root starts this. A transfer by one TCP
connection shows that the link is as slow as it should be. Then every exchange trains a net of 5.3 MB of parameters, with
BatchNorm, for a few iterations and for more. The difference of the counters of a host's interface, received plus sent,
divided by the difference of iterations and by the bytes of the parameters, is what the table calls "times": twice is the
least for two hosts, gradients one way and parameters the other, of every parameter once. Snapshots of both layouts tell
whether 2 x 2 ranks learn what 4 ranks of one host do. Last, the link is cut in the middle of a run, and the table says who
ended when, and how.

With offload, as network cards do it and as the kernel does by default, TCP's headers come once for up to 64 KiB; without
(``--no-offload``) every packet of 1,500 bytes has its 66.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from paratrain.proto import NetParameter
from tests.integration.cli import COMMAND, ENVIRONMENT
from tests.soak.cut_link import cut, cut_table
from tests.soak.hosts import RANKS_PER_HOST, TwoHosts, two_hosts
from tests.soak.job_between_hosts import PARAMETER_BYTES, write_files, write_solver

EXCHANGES = ("tree", "sharded", "ring", "mpi")
MOST_TIMES = 2.05
FEW, MORE = 5, 30
_RUN_S = 300.0
_TRANSFER_BYTES = 64 * 1024 * 1024
_RECEIVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 9999)) as server:
    print("ready", flush=True)
    connection = server.accept()[0]
    begin, count = time.perf_counter(), 0
    while received := connection.recv(1 << 20):
        count += len(received)
    print(count, time.perf_counter() - begin)
"""
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 9999)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""


@dataclass(frozen=True)
class Result:
    """What one exchange sent, for every repetition and host, and what it learned."""

    exchange: str
    times: Sequence[float]
    """Bytes that a host received and sent in a step, over the bytes of the parameters."""
    one_way: Sequence[float]
    """The larger of the two directions of the same."""
    step_ms: Sequence[float]
    repeated: str
    """Whether all runs on the two hosts ended with the same bytes."""
    difference: float
    """The largest difference of a parameter from that of four ranks on one host, over the largest parameter."""
    trees: tuple[str, str]
    """The tree of the ranks on two hosts and on one."""


def link_rates(hosts: TwoHosts) -> list[float]:
    """The rate of one TCP connection from each host to the other, in bits per second of what it carries."""
    rates = []
    for source, destination in ((0, 1), (1, 0)):
        address = hosts.address(destination)
        receiver = subprocess.Popen(
            [*hosts.on(destination), sys.executable, "-c", _RECEIVE, address], stdout=subprocess.PIPE, text=True
        )
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        subprocess.run([*hosts.on(source), sys.executable, "-c", _SEND, address, str(_TRANSFER_BYTES)], check=True)
        count, seconds = receiver.communicate()[0].split()
        assert int(count) == _TRANSFER_BYTES
        rates.append(8 * int(count) / float(seconds))
    return rates


def measure(hosts: TwoHosts, folder: Path, exchange: str, repeats: int, mpirun: str) -> Result:
    """Train ``repeats`` times for few and for more iterations on the hosts, and once on one host."""
    times, one_way, step_ms, sums = [], [], [], []
    here, there = (folder / f"{exchange.replace(' ', '')}-{layout}" for layout in ("4", "2x2"))
    for place in (here, there):
        write_files(place)
    tree_here, _ = train([mpirun, "-n", str(2 * RANKS_PER_HOST)], here, exchange, MORE)
    for _ in range(repeats):
        counted, walls = [], []
        for count in (FEW, MORE):
            before = [hosts.traffic(host).bytes for host in (0, 1)]
            tree_there, wall_s = train(hosts.mpirun(mpirun), there, exchange, count)
            counted.append(np.array([hosts.traffic(host).bytes for host in (0, 1)]) - np.array(before))
            walls.append(wall_s)
        sums.append(hashlib.sha256(weights(there).tobytes()).digest())
        per_step = (counted[1] - counted[0]) / (MORE - FEW) / PARAMETER_BYTES
        times += per_step.sum(axis=1).tolist()
        one_way += per_step.max(axis=1).tolist()
        step_ms.append((walls[1] - walls[0]) / (MORE - FEW) * 1e3)
    one, two = weights(here), weights(there)
    repeated = "-" if repeats == 1 else "the same bytes" if len(set(sums)) == 1 else "OTHER BYTES"
    difference = float(np.abs(one - two).max() / np.abs(one).max())
    return Result(exchange, times, one_way, step_ms, repeated, difference, (tree_there, tree_here))


def train(launcher: Sequence[str], folder: Path, exchange: str, count: int) -> tuple[str, float]:
    """Train ``count`` iterations; return the tree that the log names, and the seconds from its first step to the end."""
    write_solver(folder, count)
    done = subprocess.run(
        [*launcher, *COMMAND, "train", "solver.prototxt", "--exchange", *exchange.split()],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=_RUN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{exchange}: {done.stderr[-3000:]}"
    lines = done.stderr.splitlines()
    tree = next((line.partition("] ")[2] for line in lines if "adds" in line), "")
    begin, end = (
        next(_clock(line) for line in lines if words in line)
        for words in ("Starting Optimization", "Optimization Done")
    )
    return tree, (end - begin) % 86400


def _clock(line: str) -> float:
    """The time of a line of a log, in seconds since midnight: I1122 05:10:11.123456 ..."""
    hours, minutes, seconds = line.split()[1].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def weights(folder: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """All blobs of the net that was trained to the end, one after the other."""
    net = NetParameter.FromString((folder / f"net_iter_{MORE}.caffemodel").read_bytes())
    return np.concatenate([np.array(blob.data, np.float32) for layer in net.layer for blob in layer.blobs])


def bytes_table(results: Sequence[Result]) -> str:
    """What went over the link."""
    lines = [
        f"| exchange | times, min | median | max | at most {MOST_TIMES} | the busier way | ms a step | run by run | "
        "against 4 ranks of one host |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        low, middle, high = min(result.times), statistics.median(result.times), max(result.times)
        against = "the same bytes" if result.difference == 0 else f"{result.difference:.1e} of the largest value away"
        lines.append(
            f"| {result.exchange} | {low:.4f} | {middle:.4f} | {high:.4f} | {'yes' if high <= MOST_TIMES else 'NO'} | "
            f"{max(result.one_way):.4f} | {statistics.median(result.step_ms):.0f} | "
            f"{result.repeated} | {against} |"
        )
    for where, name in enumerate(("On two hosts", "On one")):
        lines += ["", f"{name}: {', '.join(sorted({result.trees[where] for result in results}))}"]
    return "\n".join(lines)


def main() -> int:
    """Do what the command line says; return 1 where a limit is exceeded, or a cut link ends no job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--exchanges",
        default=",".join(EXCHANGES),
        help="what to train with, as after train --exchange, options included: 'tree,sharded --roots 2' (default: all)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--cut", default="tree,sharded", help="exchanges whose link is cut (default: tree,sharded)")
    parser.add_argument("--cut-after", type=int, default=60, metavar="STEPS", help="when to cut the link (default: 60)")
    parser.add_argument("--cut-limit", type=float, default=60.0, metavar="S", help="how long to look on after the cut")
    parser.add_argument("--options", default="", help="further options of train, for the runs that are cut")
    parser.add_argument("--gbit", type=float, default=1.0, help="Gbit/s of the link in each direction (default: 1)")
    parser.add_argument("--mtu", type=int, default=1500, help="the largest packet (default: 1500)")
    parser.add_argument("--no-offload", action="store_true", help="count a header for every packet")
    parser.add_argument(
        "--mpirun", default=shutil.which("mpirun") or "mpirun", help="MPICH's launcher (default: mpirun)"
    )
    parser.add_argument("--save", metavar="FILE", help="write the tables to FILE, too")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "unshare"))):
        parser.error("making hosts needs root, and ip, tc and unshare")
    text = f"# Two hosts of two ranks each\n\n{describe('mpi4py', 'mpich')}\n"
    is_good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with two_hosts(folder, gbit_per_s=arguments.gbit, mtu=arguments.mtu, offload=not arguments.no_offload) as hosts:
            rates = link_rates(hosts)
            if max(rates) > arguments.gbit * 1e9:
                sys.stderr.write(f"the link is faster than {arguments.gbit} Gbit/s: {rates}\n")
                return 1
            carried = " and ".join(f"{rate / 1e6:.0f}" for rate in rates)
            packets = f"packets of {arguments.mtu} bytes" + (
                ", a header for each" if arguments.no_offload else ", offload on"
            )
            text += f"- a link of {arguments.gbit} Gbit/s, {packets}; TCP carries {carried} Mbit/s there and back\n"
            text += f"- {PARAMETER_BYTES:,} bytes of parameters, {MORE - FEW} steps, {arguments.repeats} runs\n"
            sys.stdout.write(text)
            results = []
            for exchange in filter(None, arguments.exchanges.split(",")):
                results.append(measure(hosts, folder, exchange, arguments.repeats, arguments.mpirun))
                is_good = is_good and max(results[-1].times) <= MOST_TIMES
                sys.stdout.write(f"{bytes_table(results[-1:]).splitlines()[2]}\n")
                sys.stdout.flush()
            cuts = []
            for exchange in filter(None, arguments.cut.split(",")):
                limit_s, options = arguments.cut_limit, arguments.options.split()
                cuts.append(cut(hosts, folder, exchange, arguments.mpirun, options, arguments.cut_after, limit_s))
                is_good = is_good and cuts[-1].is_good
                sys.stdout.write(f"{cut_table(cuts[-1:])}\n{cuts[-1].left}\n")
                sys.stdout.flush()
    if results:
        text += f"\n## Bytes over the link\n\n{bytes_table(results)}\n"
    if cuts:
        text += f"\n## The link is cut\n\n`train {arguments.options}`\n\n{cut_table(cuts)}\n"
    if arguments.save:
        Path(arguments.save).write_text(text)
    sys.stdout.write(f"\n{text}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
