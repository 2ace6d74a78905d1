"""How much memory the machine, or the container, has left."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes"]

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """The host memory that can still be taken, swap included, within the limit of a container; None where unknown."""
    found = [value for value in (_of_machine(), _of_container()) if value is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    fields = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) * 1024
        return fields["MemAvailable"] + fields.get("SwapFree", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return None  # not Linux


def _of_container() -> int | None:
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Pages of files are given back when somebody needs the memory.
        return None if limit == "max" else int(limit) - int(used) + int(statistics.get("file", 0))
    except (OSError, ValueError):
        return None
