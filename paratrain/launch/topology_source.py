"""Which machine ``paratrain topology`` is to show, and what to plan for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paratrain.errors import DeviceError, PrototxtError, TopologyError
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.planning.view import AnyPlan
from paratrain.topology.selection import select_gpus

__all__ = ["Found", "Wanted", "find", "make_plan", "wanted"]

LENET_BYTES = 431_080 * 4  # float32 parameters
COMPARED_BYTES = (LENET_BYTES, 10_000, 100_000_000)
# What is planned in under a minute.
MOST_RANKS = 1024  # on one node
MOST_NODES = 8192
_MOST_MEMBERS = 65_536
_MOST_RANKS_SHOWN = 8  # of those that a machine without a GPU could run


@dataclass(frozen=True)
class Found:
    """A machine, what earlier tests of its links have found, and what a saved plan was made for."""

    machine: Machine
    verdicts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    wanted: Wanted | None = None


@dataclass(frozen=True)
class Wanted:
    """What is to be planned: the tree's shape and root (None: free), the sizes in bytes, and the count of nodes."""

    tree: str
    root: int | None
    byte_counts: tuple[int, ...]
    nodes: int = 1


def find(arguments: argparse.Namespace) -> Found:
    """The machine that the options name: a file, one of the catalogue, ranks on CPU cores, or this machine."""
    found = _find(arguments)
    machine = found.machine
    if not machine.gpus and arguments.gpus is not None:
        reason = machine.no_gpu_reason or machine.source
        raise DeviceError(f"no NVIDIA GPU: {reason}; leave out --gpus, or give --from FILE or --ranks N")
    if arguments.gpus is not None:
        machine = machine.select(select_gpus(arguments.gpus, machine, "--gpus"))
    if arguments.network is not None:
        from paratrain.topology.link_figures import network_figure

        figure = replace(network_figure(machine), bytes_per_s=arguments.network * 1e9, origin="given")
        machine = replace(machine, network=figure)
    return replace(found, machine=machine)


def wanted(arguments: argparse.Namespace, found: Found) -> Wanted:
    """What the options ask for; where they say nothing, what a saved plan was made for, and then the defaults."""
    before = found.wanted or Wanted("", None, (LENET_BYTES,))
    nodes = before.nodes if arguments.nodes is None else arguments.nodes
    count = nodes * len(found.machine.indices)
    if count > _MOST_MEMBERS:
        members = "GPUs" if found.machine.gpus else "ranks"
        raise TopologyError(
            f"{nodes:,} nodes with {count:,} {members} are more than can be planned for: {_MOST_MEMBERS:,} {members} at most; "
            "give fewer --nodes"
        )
    # What ranks on CPU cores of one node use in training unless they are given another tree, or else the fastest one.
    usual = "auto" if found.machine.gpus or nodes > 1 else "index"
    root = before.root if before.root in found.machine.indices else None
    return Wanted(
        arguments.tree or before.tree or usual,
        root if arguments.root is None else arguments.root,
        _byte_counts(arguments)
        or (COMPARED_BYTES if arguments.compare and found.wanted is None else before.byte_counts),
        nodes,
    )


def make_plan(found: Found, asked: Wanted, count: int) -> AnyPlan:
    """The plan for `count` bytes, on one node or on several."""
    if asked.nodes == 1:
        return plan_machine(found.machine, count, asked.root, asked.tree)
    from paratrain.topology.costs.cluster import Cluster
    from paratrain.topology.planning.cluster_plan import plan_cluster

    if asked.root is not None:
        raise TopologyError(f"--root {asked.root}: with --nodes the root is chosen on the first node; leave out --root")
    return plan_cluster(Cluster.of(found.machine, asked.nodes), count, asked.tree)


def _find(arguments: argparse.Namespace) -> Found:
    if arguments.source is not None:
        return _read(arguments.source)
    if arguments.machine is not None:
        from paratrain.topology.known_machines import known_machine

        return Found(known_machine(arguments.machine))
    if arguments.ranks is not None:
        return Found(_cpu_machine(arguments.ranks))
    from paratrain.topology.sources.find import find_machine

    machine = find_machine()
    if not machine.gpus:
        machine = replace(machine, cpu_ranks=_cpu_machine(min(_core_count(), _MOST_RANKS_SHOWN)).cpu_ranks)
    return Found(machine)


def _read(path: str) -> Found:
    """The machine of a file: a saved plan, or text of ``nvidia-smi topo -m``."""
    name = "standard input" if path == "-" else path
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}") from error
    from paratrain.topology.files.saved_values import looks_saved

    if not looks_saved(content):
        from paratrain.topology.text.matrix import read_machine

        return Found(read_machine(content, name))
    from paratrain.topology.files.saved import read_saved_machine, read_verdicts

    return Found(read_saved_machine(content, name), read_verdicts(content, name), _wanted_then(content, name))


def _wanted_then(content: bytes, source: str) -> Wanted | None:
    """What the plan in a saved file was made for."""
    from paratrain.topology.files.saved_values import Fields, saved_values

    top = Fields(saved_values(content, source), source, "")
    if top.get("wanted") is None:
        return None
    saved = top.object("wanted")
    counts: Any = saved.get("bytes")
    if not isinstance(counts, list) or not counts or not all(type(count) is int and count > 0 for count in counts):
        raise saved.error("bytes", "a list of sizes in bytes", counts)
    from paratrain.topology.planning.plan import SHAPES

    if saved.text("tree") not in SHAPES:
        raise saved.error("tree", f"one of {', '.join(SHAPES)}", saved.get("tree"))
    return Wanted(saved.text("tree"), saved.whole_or_none("root"), tuple(counts), saved.whole("nodes", least=1))


def _cpu_machine(count: int) -> Machine:
    return Machine(source="CPU ranks", cpu_ranks=tuple(CpuRank(number) for number in range(count)))


def _core_count() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # systems other than Linux
        return os.cpu_count() or 1


def _byte_counts(arguments: argparse.Namespace) -> tuple[int, ...]:
    counts = list(arguments.bytes or ())
    if arguments.model is not None:
        counts.insert(0, _gradient_bytes(arguments.model))
    return tuple(dict.fromkeys(counts))


def _gradient_bytes(path: str) -> int:
    """The bytes of a net's gradients, which is what a step sends over each edge."""
    import logging

    from paratrain.check import check_file
    from paratrain.log import init_log

    init_log(logging.ERROR)
    report = check_file(path)
    count = next((net.memory.parameter_diff for net in report.nets if net.memory.parameter_diff), 0)
    if count:
        return count
    reason = report.problems[0] if report.problems else "the net learns no parameters"
    raise PrototxtError(f"--model {path}: cannot tell the size of the gradients: {reason}")
