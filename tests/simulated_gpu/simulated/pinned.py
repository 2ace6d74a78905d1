"""Memory of the host that is pinned: made so, or registered."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulated import late
from simulated.errors import CUDARuntimeError

__all__ = ["is_pinned", "register", "unregister"]

_pinned: dict[int, int] = {}


def register(address: int, size: int) -> None:
    """Raises CUDARuntimeError where a part of it is pinned already."""
    if size <= 0:
        raise CUDARuntimeError(1)
    if any(start < address + size and address < start + length for start, length in _pinned.copy().items()):
        raise CUDARuntimeError(712)
    _pinned[address] = size


def unregister(address: int) -> None:
    size = _pinned.pop(address, None)
    if size is not None:
        late.leave_host(address, size)
    else:
        raise CUDARuntimeError(713)


def is_pinned(array: np.ndarray[Any, Any]) -> bool:
    address = array.ctypes.data
    return any(start <= address and address + array.nbytes <= start + size for start, size in _pinned.copy().items())
