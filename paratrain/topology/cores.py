"""The processor cores of a machine, divided among its ranks.

Every rank describes with `local_core_place` what it may use; the descriptions travel to the others as plain values, and
`divide` says what each gets. A core is a physical one here, a CPU what Linux numbers: with hyper-threading a core has two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.topology.hosts import boot_id, numa_cpus, usable_cpus
from paratrain.topology.number_ranges import parse_ranges
from paratrain.topology.system_files import link_target, text_of

__all__ = ["CorePlace", "CoreShare", "divide", "local_core_place"]


@dataclass(frozen=True)
class CorePlace:
    """What one rank may use of its machine."""

    machine: str
    """Names one boot of one kernel: the same for all containers of a machine."""
    cores: tuple[tuple[int, ...], ...]
    """The CPUs that the rank may run on, those of one core together; cores of one NUMA node follow each other."""
    quota: float | None = None
    """How many CPUs' time its control group gets; None for no limit."""
    quota_group: str = ""
    """Ranks of one machine with the same name here share that time."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs, sorted."""
        return tuple(sorted(cpu for core in self.cores for cpu in core))


@dataclass(frozen=True)
class CoreShare:
    """What one rank gets of its machine."""

    cpus: tuple[int, ...]
    """Where it is to run, sorted."""
    thread_count: int
    """One for each core of the share, at least 1."""
    cpu_count: int
    """The CPUs of the share, at least 1: fewer than ``cpus`` where other ranks use these too, or time is limited."""
    is_narrowed: bool
    """``cpus`` are a part of those that the rank may use, for it alone."""
    is_limited: bool
    """A control group gives it less time than ``cpus`` would have."""
    is_crowded: bool
    """There are more ranks than cores."""


def local_core_place(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> CorePlace:
    """What this process may use. Never raises: what the system does not tell stays open.

    `root` stands in for the root of the file system (/proc, /sys), `cpus` for the CPUs of `os.sched_getaffinity`.
    """
    quota, group = _quota(root)
    return CorePlace(boot_id(root), _cores(root, usable_cpus() if cpus is None else cpus), quota, group)


def divide(places: Sequence[CorePlace], rank: int) -> CoreShare:
    """Return what `rank` gets, given the places of all ranks.

    Ranks that may use the very same cores divide them, in the order of ranks: equal numbers of threads, and CPUs of their
    own. A rank whose cores no other rank may use keeps them: its launcher has bound it, or it is alone. No rank gets CPUs
    of its own where there are more ranks than cores, where sets of cores overlap in part, or where a control group limits
    the time to less than the CPUs would have: the machine is somebody else's too.
    """
    mine = places[rank]
    mates = [other for other, place in enumerate(places) if place.machine == mine.machine]
    cpus = mine.cpus
    same = [other for other in mates if places[other].cpus == cpus]
    sharing = (
        [other for other in mates if not set(cpus).isdisjoint(places[other].cpus)] if len(same) < len(mates) else same
    )
    core_count, cpu_count = len(mine.cores) / len(sharing), len(cpus) / len(sharing)
    is_limited = mine.quota is not None and mine.quota < len(cpus)
    if mine.quota is not None:
        share = mine.quota / sum(places[other].quota_group == mine.quota_group for other in mates)
        core_count, cpu_count = min(core_count, share), min(cpu_count, share)
    is_crowded = core_count < 1 and len(mates) > 1
    is_narrowed = 1 < len(same) == len(sharing) and not is_crowded and not is_limited
    if is_narrowed:
        begin, end = (len(mine.cores) * place // len(same) for place in (same.index(rank), same.index(rank) + 1))
        cpus = tuple(sorted(cpu for core in mine.cores[begin:end] for cpu in core))
    return CoreShare(
        cpus,
        thread_count=max(math.floor(core_count), 1),
        cpu_count=max(math.floor(cpu_count), 1),
        is_narrowed=is_narrowed,
        is_limited=is_limited,
        is_crowded=is_crowded,
    )


def _cores(root: Path, cpus: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """The CPUs by cores, sorted by NUMA node and first CPU; each CPU is a core where the system does not tell."""
    mine = sorted(set(cpus))
    node_of_cpu = {cpu: node for node, ones in numa_cpus(root).items() for cpu in ones}
    cores: dict[tuple[int, int], list[int]] = {}
    for cpu in mine:
        siblings = parse_ranges(text_of(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
        first = min(siblings) if siblings else cpu
        cores.setdefault((node_of_cpu.get(cpu, 0), first), []).append(cpu)
    return tuple(tuple(cores[key]) for key in sorted(cores))


def _quota(root: Path) -> tuple[float | None, str]:
    """The least quota on the way from this process's control group to the top, in CPUs, and where it is set."""
    least, where = math.inf, ""
    for folder in _control_groups(root):
        quota = _quota_of(folder)
        if quota < least:
            least, where = quota, str(folder)
    return (None, "") if least == math.inf else (least, f"{link_target(root / 'proc/self/ns/cgroup')} {where}")


def _control_groups(root: Path) -> list[Path]:
    """The folders that may limit this process's time: version 2 of control groups, then version 1."""
    folders = []
    for line in text_of(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tops = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            tops = [root / "sys/fs/cgroup" / name for name in (controllers, "cpu")]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        # A container may see the path that its host has for the group, and only the group itself in the file system.
        folders += [top.joinpath(*parts[:depth]) for top in tops for depth in range(len(parts), -1, -1)]
    return folders


def _quota_of(folder: Path) -> float:
    """The CPUs' time that a control group gets; infinite for no limit."""
    words = text_of(folder / "cpu.max").split()
    if not words:
        words = [text_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        time_us, period_us = (float(word) for word in words)
    except ValueError:  # "max 100000", or not there
        return math.inf
    return time_us / period_us if time_us > 0 and period_us > 0 else math.inf
