"""Where ranks run: the machine, its NUMA nodes, the cores a rank may use, and what it shares with other ranks.

Every rank describes its own place with `local_place`; the descriptions travel to the others as plain values. Hostnames
are not looked at: containers and clusters give one name to many machines, and many names to one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.topology.machine import MachineWarning
from paratrain.topology.number_ranges import format_ranges, parse_ranges
from paratrain.topology.system_files import link_target, text_of

_LITTLE_SHARED_BYTES = 64 * 2**20  # what container engines give /dev/shm unless told otherwise


@dataclass(frozen=True)
class RankPlace:
    """Where one rank runs; None or an empty text where its system does not say.

    `boot_id` names one boot of one kernel: the same for all containers of a machine, another in each virtual machine.
    `cpus` are the cores that the rank may use, `numa_nodes` the NUMA nodes these belong to. `pid_namespace`,
    `ipc_namespace` and `shared_memory` name what containers may keep apart: the process numbers, System V's shared
    memory and the file system of /dev/shm, which has `shared_memory_bytes`.
    """

    boot_id: str = ""
    cpus: tuple[int, ...] = ()
    numa_nodes: tuple[int, ...] = ()
    pid_namespace: str = ""
    ipc_namespace: str = ""
    shared_memory: str = ""
    shared_memory_bytes: int | None = None

    @property
    def numa_node(self) -> int | None:
        """The NUMA node of a rank that is bound to one; None for a rank that may run on several."""
        return self.numa_nodes[0] if len(self.numa_nodes) == 1 else None


def local_place(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> RankPlace:
    """The place of this process. Never raises: what the system does not tell stays open.

    `root` stands in for the root of the file system (/proc, /sys, /dev), `cpus` for the cores of `os.sched_getaffinity`.
    """
    mine = tuple(sorted(usable_cpus() if cpus is None else cpus))
    nodes = tuple(node for node, cores in numa_cpus(root).items() if set(cores) & set(mine))
    shared_memory, byte_count = _shared_memory(root / "dev/shm")
    return RankPlace(
        boot_id=boot_id(root),
        cpus=mine,
        numa_nodes=nodes,
        pid_namespace=link_target(root / "proc/self/ns/pid"),
        ipc_namespace=link_target(root / "proc/self/ns/ipc"),
        shared_memory=shared_memory,
        shared_memory_bytes=byte_count,
    )


def numa_cpus(root: Path = Path("/")) -> dict[int, tuple[int, ...]]:
    """The cores of each NUMA node, by its number, as Linux lists them; {} where it does not. Some nodes have none."""
    found: dict[int, tuple[int, ...]] = {}
    try:
        folders = list((root / "sys/devices/system/node").iterdir())
    except OSError:
        return {}
    for folder in folders:
        number = folder.name.removeprefix("node")
        cpus = parse_ranges(text_of(folder / "cpulist")) if number.isdecimal() and folder.name != number else None
        if cpus is not None:
            found[int(number)] = cpus
    return dict(sorted(found.items()))


def numa_of_rank(places: Sequence[RankPlace], nodes: Sequence[int]) -> list[int]:
    """For each rank the number of its group: the ranks of one node (`nodes`) that are bound to one NUMA node of it.

    Groups are counted from 0 in the order of their lowest ranks. Ranks of a node that are not bound to a NUMA node form
    one group together.
    """
    numbers: dict[tuple[int, int | None], int] = {}
    return [
        numbers.setdefault((node, place.numa_node), len(numbers)) for node, place in zip(nodes, places, strict=True)
    ]


def sharing_warnings(places: Sequence[RankPlace], nodes: Sequence[int]) -> list[MachineWarning]:
    """T12 for ranks that run on one machine and yet cannot share what fast copies between them need."""
    warnings: list[MachineWarning] = []
    machines: dict[str, list[int]] = {}
    for rank, place in enumerate(places):
        if place.boot_id:
            machines.setdefault(place.boot_id, []).append(rank)
    for ranks in machines.values():
        if len({nodes[rank] for rank in ranks}) > 1:
            message = (
                f"ranks {format_ranges(ranks)} run on one machine, but MPI shares no memory between all of them; start "
                "the containers with one IPC namespace (docker run --ipc=host), or run all ranks in one container"
            )
            warnings.append(MachineWarning("T12", message))
            continue
        apart = [
            name
            for name, values in (
                ("process numbers (--pid=host)", {places[rank].pid_namespace for rank in ranks}),
                ("an IPC namespace (--ipc=host)", {places[rank].ipc_namespace for rank in ranks}),
                ("the file system of shared memory (--ipc=host)", {places[rank].shared_memory for rank in ranks}),
            )
            if len(values) > 1
        ]
        if apart:
            message = (
                f"ranks {format_ranges(ranks)} run in containers of one machine that do not share {' and '.join(apart)};"
                " GPUs cannot copy to each other directly between them"
            )
            warnings.append(MachineWarning("T12", message))
    little = [
        rank
        for rank, place in enumerate(places)
        if place.shared_memory_bytes is not None
        and place.shared_memory_bytes <= _LITTLE_SHARED_BYTES
        and list(nodes).count(nodes[rank]) > 1
    ]
    if little:
        ranks_words = f"ranks {format_ranges(little)} have"
        message = f"{ranks_words} 64 MiB of shared memory or less in /dev/shm; give the container more (--shm-size=1g)"
        warnings.append(MachineWarning("T12", message))
    return warnings


def boot_id(root: Path = Path("/")) -> str:
    """What names this boot of this kernel; empty where the system does not say."""
    return text_of(root / "proc/sys/kernel/random/boot_id")


def usable_cpus() -> Iterable[int]:
    """The CPUs that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):  # systems other than Linux bind nothing that could be asked for
        return range(os.cpu_count() or 1)


def _shared_memory(folder: Path) -> tuple[str, int | None]:
    """The device of /dev/shm and its size in bytes."""
    try:
        space = os.statvfs(folder)
        return str(folder.stat().st_dev), space.f_blocks * space.f_frsize
    except (AttributeError, OSError):
        return "", None
