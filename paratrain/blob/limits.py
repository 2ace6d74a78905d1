"""How large a blob may be: wrong sizes in a prototxt are refused before any memory is taken for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from paratrain.errors import NetError, ShapeMismatchError

__all__ = ["LARGEST_COUNT", "available_bytes", "check_bytes", "check_count", "format_bytes"]

LARGEST_COUNT = 2**31 - 1
"""The most values of one blob; the limit is Caffe's."""

# Asking the system takes some microseconds; smaller blocks are not worth it.
_LEAST_ASKED_BYTES = 256 * 1024 * 1024
_CGROUP = Path("/sys/fs/cgroup")


def check_count(shape: Sequence[int]) -> int:
    """Return the number of values of ``shape``. Raises ShapeMismatchError where it is above LARGEST_COUNT."""
    count = math.prod(shape)
    if count > LARGEST_COUNT:
        raise ShapeMismatchError(
            f"a blob of the shape {tuple(shape)} would have {count:,} values; a blob has at most {LARGEST_COUNT:,}"
        )
    return count


def check_bytes(wanted_bytes: int, what: str) -> None:
    """Raise NetError where ``wanted_bytes`` of host memory for ``what`` are more than the machine has to give now."""
    if wanted_bytes < _LEAST_ASKED_BYTES:
        return
    free_bytes = available_bytes()
    if free_bytes is not None and wanted_bytes > free_bytes:
        raise NetError(
            f"{what} would take {format_bytes(wanted_bytes)} of memory; {format_bytes(free_bytes)} are available. "
            "A smaller batch_size takes less"
        )


def available_bytes() -> int | None:
    """The host memory that can still be taken, swap included, within the limit of a container; None where unknown."""
    found = [value for value in (_of_machine(), _of_container()) if value is not None]
    return min(found) if found else None


def format_bytes(count: int) -> str:
    """``1.5 GiB``: three digits, with the unit that suits."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{size:.3g} {units[0]}"


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
