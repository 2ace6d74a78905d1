"""Time planning: parse, plan and draw 16 GPUs; plan 1,024 GPUs; start `paratrain topology`.

    python benchmarks/topology.py
    python benchmarks/topology.py --rounds 3 --save benchmarks/results/topology.md

Each row is repeated `--rounds` times. "In this process" leaves out starting Python; everything else of a cold start is in the
rows that start the command. The machine of 16 GPUs is the text that `nvidia-smi topo -m` would print on it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import REPOSITORY, describe

sys.path.insert(0, str(REPOSITORY))

from paratrain.topology.costs.cluster import Cluster, ClusterFabric
from paratrain.topology.costs.simulate import simulate_trees
from paratrain.topology.known_machines import known_machine
from paratrain.topology.machine import Machine
from paratrain.topology.planning.cluster_plan import plan_cluster
from paratrain.topology.planning.compare import compare_methods
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.show.draw import draw_plan
from paratrain.topology.text.matrix import read_machine

LENET = 431_080 * 4
ALEXNET = 60_965_224 * 4
PCIE_16 = 16
GROWN = ["topology", "--machine", "hgx-h100", "--nodes", "128"]


def matrix_text(machine: Machine) -> str:
    """What `nvidia-smi topo -m` prints on this machine."""
    lines = ["\t" + "\t".join(f"GPU{index}" for index in machine.indices) + "\tCPU Affinity\tNUMA Affinity"]
    for gpu in machine.gpus:
        cells = [machine.link_class(gpu.index, other).word.center(3) for other in machine.indices]
        lines.append("\t".join([f"GPU{gpu.index}", *cells, "0-15", str(gpu.numa_node)]))
    return "\n".join(lines) + "\n"


def pcie_16() -> str:
    """16 GPUs on PCIe: pairs below a switch, four to a host bridge, two sockets."""
    words = {0: "PIX", 1: "PXB", 2: "NODE", 3: "SYS"}
    rows = []
    for a in range(PCIE_16):
        cells = ["X" if a == b else words[max(0, (a ^ b).bit_length() - 1)] for b in range(PCIE_16)]
        rows.append("\t".join([f"GPU{a}", *cells, "0-15", str(a // 8)]))
    return (
        "\t" + "\t".join(f"GPU{a}" for a in range(PCIE_16)) + "\tCPU Affinity\tNUMA Affinity\n" + "\n".join(rows) + "\n"
    )


def in_this_process() -> dict[str, Callable[[], object]]:
    dgx2, pcie = matrix_text(known_machine("dgx2")).encode(), pcie_16().encode()
    cluster = Cluster.of(known_machine("hgx-h100"), 128)
    planned = plan_cluster(cluster, LENET)
    read = read_machine(pcie, "box.txt")
    return {
        "parse, plan and draw 16 GPUs on NVSwitches (DGX-2), LeNet": lambda: draw_plan(
            plan_machine(read_machine(dgx2, "box.txt"), LENET)
        ),
        "parse, plan and draw 16 GPUs on PCIe, LeNet": lambda: draw_plan(
            plan_machine(read_machine(pcie, "box.txt"), LENET)
        ),
        "parse, plan and draw 16 GPUs on PCIe, AlexNet": lambda: draw_plan(
            plan_machine(read_machine(pcie, "box.txt"), ALEXNET)
        ),
        "plan 16 GPUs on PCIe, LeNet": lambda: plan_machine(read, LENET),
        "compare all methods on 16 GPUs on PCIe, LeNet": lambda: compare_methods(plan_machine(read, LENET)),
        "plan 1,024 GPUs on 128 nodes (HGX H100), LeNet": lambda: plan_cluster(cluster, LENET),
        "plan 1,024 GPUs on 128 nodes (HGX H100), AlexNet": lambda: plan_cluster(cluster, ALEXNET),
        "simulate the tree over 1,024 GPUs, LeNet": lambda: simulate_trees(
            ClusterFabric(cluster), [planned.tree], LENET
        ),
    }


def commands(folder: Path) -> dict[str, list[str]]:
    box = folder / "box.txt"
    box.write_text(matrix_text(known_machine("dgx1-v100")))
    paratrain = [sys.executable, "-m", "paratrain"]
    return {
        "start Python": [sys.executable, "-c", "pass"],
        "`paratrain --help`": [*paratrain, "--help"],
        "`paratrain topology --from FILE`, 8 GPUs": [*paratrain, "topology", "--from", str(box)],
        "`paratrain topology --machine hgx-h100 --nodes 128`": [*paratrain, *GROWN],
    }  # fmt: skip


def milliseconds(run: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="times that each row is repeated (default: 9)")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    lines = [
        "# Topology: planning and starting",
        "",
        describe(),
        "",
        "| | min ms | median ms | max ms |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = in_this_process()
        for title, words in commands(folder).items():

            def start(words: list[str] = words) -> None:
                subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)

            runs[title] = start
        for title, run in runs.items():
            run()  # once for the caches of files and figures
            times = milliseconds(run, options.rounds)
            cells = (f"{value:.1f}" for value in (min(times), statistics.median(times), max(times)))
            lines.append(f"| {title} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    text = "\n".join(lines)
    if options.save:
        Path(options.save).write_text(text + "\n")
        print(f"written to {options.save}")


if __name__ == "__main__":
    main()
