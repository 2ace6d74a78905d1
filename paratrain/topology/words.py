"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paratrain.topology.machine import Gpu, Member

SHAPES = {
    "tree": "tree",
    "index": "tree in the order of the indices",
    "chain": "chain",
    "star": "star",
    "sharded": "trees on shards",
}
TRANSPORTS = {
    "ipc": "CUDA IPC",
    "host": "through the host",
    "shared": "shared memory",
    "mpi": "MPI",
}  # of an edge, in words


def member_name(member: Member) -> str:
    """``GPU3``, or ``rank 3`` for a rank on CPU cores."""
    return f"GPU{member.index}" if isinstance(member, Gpu) else f"rank {member.index}"


def size(byte_count: int) -> str:
    """A count of bytes: ``1.72 MB``; k, M and G are powers of 1000."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if byte_count >= scale:
            return f"{_three_digits(byte_count / scale)} {unit}"
    return f"{byte_count} bytes"


def duration(seconds: float) -> str:
    """Seconds: ``0.22 ms`` is ``220 us``, ``0.0022`` is ``2.2 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} us"


def rate(bytes_per_s: float) -> str:
    """Bytes a second: ``8.8 GB/s``, ``360 GB/s``."""
    gigabytes = bytes_per_s / 1e9
    return f"{gigabytes:.1f} GB/s" if gigabytes < 99.95 else f"{gigabytes:.0f} GB/s"


def range_of(texts: Iterable[tuple[float, str]]) -> str:
    """``8.8 GB/s``, or ``8.8 to 22.0 GB/s`` where figures (each with its text) differ."""
    ordered = sorted(set(texts))
    low, high = ordered[0][1], ordered[-1][1]
    if low == high:
        return low
    return f"{low.removesuffix(' ' + high.split(' ')[-1])} to {high}"


def plural(number: int, what: str) -> str:
    """``1 GPU``, ``4 GPUs``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The rows as lines with their columns below each other, those of the numbers in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return [
        "  ".join(
            f"{text:>{width}}" if place in right else f"{text:<{width}}"
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
