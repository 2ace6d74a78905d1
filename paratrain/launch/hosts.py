"""The hosts of a job: read from a list or a file of either MPI's form, and given to mpirun."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.errors import CommunicationError

__all__ = ["Host", "parse_hosts", "read_host_file", "slot_count"]

_NAME = r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]"
_ENTRY = re.compile(rf"(?P<name>{_NAME})(?::(?P<slots>\d+))?")
_LINE = re.compile(rf"(?P<name>{_NAME})(?::(?P<slots>\d+)|(?P<rest>(\s+[\w-]+\s*=\s*\d+)*))")


@dataclass(frozen=True)
class Host:
    """A machine, and how many ranks it takes."""

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


def parse_hosts(text: str) -> list[Host]:
    """Read ``node1:4,node2:4``; a host without a number takes one rank. Raises CommunicationError."""
    hosts = []
    for entry in text.split(","):
        found = _ENTRY.fullmatch(entry.strip())
        if found is None:
            raise CommunicationError(f"--hosts {text}: {entry!r} is not like node1:4")
        hosts.append(Host(found["name"], int(found["slots"] or 1)))
    return _checked(hosts, f"--hosts {text}")


def read_host_file(path: str) -> list[Host]:
    """Read a host file: lines of ``node1``, ``node1:4`` (MPICH) or ``node1 slots=4`` (Open MPI); # begins a remark.

    Raises CommunicationError with file and line.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise CommunicationError(f"{path}: the host file cannot be read ({error.strerror})") from None
    hosts = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            hint = "; the name of a user belongs into ~/.ssh/config" if "@" in text else ""
            raise CommunicationError(f"{path}:{number}: expected node1, node1:4 or node1 slots=4, found {text!r}{hint}")
        given = re.search(r"(?<![\w-])slots\s*=\s*(\d+)", found["rest"] or "")
        hosts.append(Host(found["name"], int(found["slots"] or (given[1] if given else 1))))
    return _checked(hosts, path)


def slot_count(hosts: Sequence[Host]) -> int:
    """How many ranks the hosts take together."""
    return sum(host.slots for host in hosts)


def _checked(hosts: list[Host], where: str) -> list[Host]:
    if not hosts:
        raise CommunicationError(f"{where}: names no host")
    names = [host.name for host in hosts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CommunicationError(f"{where}: names {twice} twice; give it once, with its number of ranks")
    none = next((host for host in hosts if host.slots == 0), None)
    if none is not None:
        raise CommunicationError(f"{where}: {none.name} takes no ranks; leave it out")
    return hosts
