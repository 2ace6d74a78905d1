"""How large a blob may be: wrong sizes in a prototxt are refused before any memory is taken for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paratrain.available_memory import available_bytes
from paratrain.errors import NetError, ShapeMismatchError

__all__ = ["LARGEST_COUNT", "available_bytes", "check_bytes", "check_count", "format_bytes"]

LARGEST_COUNT = 2**31 - 1
"""The most values of one blob; the limit is Caffe's."""

# Asking the system takes some microseconds; smaller blocks are not worth it.
_LEAST_ASKED_BYTES = 256 * 1024 * 1024


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


def format_bytes(count: int) -> str:
    """``1.5 GiB``: three digits, with the unit that suits."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{size:.3g} {units[0]}"
