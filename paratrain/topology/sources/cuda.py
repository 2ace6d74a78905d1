"""Ask CUDA which GPUs it sees, and in which order. The only module that loads libcuda; it needs no package."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from paratrain.topology.sources.pci import normal_bus_id

LIBRARIES = ("libcuda.so.1", "libcuda.so")
_SUCCESS, _NO_DEVICE = 0, 100
_BUS_ID_BYTES = 32
AskCuda = Callable[[], Sequence[str] | None]


def visible_bus_ids(libraries: Sequence[str] = LIBRARIES) -> list[str] | None:
    """The PCI bus ids of the GPUs that CUDA shows to this process, in CUDA's order; None if CUDA cannot be asked.

    CUDA has applied CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. A bus id that it does not give is "". No context is
    made and no memory is taken on any GPU, but a process that has asked must not fork children that use CUDA.
    """
    for name in libraries:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        try:
            return _bus_ids(library)
        except (AttributeError, ctypes.ArgumentError, OSError):  # a library that lacks a function
            return None
    return None


def _bus_ids(library: ctypes.CDLL) -> list[str] | None:
    status = library.cuInit(0)
    if status == _NO_DEVICE:
        return []
    count = ctypes.c_int(0)
    if status != _SUCCESS or library.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return None
    found = []
    for ordinal in range(count.value):
        text, device = ctypes.create_string_buffer(_BUS_ID_BYTES), ctypes.c_int(0)
        asked = library.cuDeviceGet(ctypes.byref(device), ordinal) == _SUCCESS
        asked = asked and library.cuDeviceGetPCIBusId(text, _BUS_ID_BYTES, device) == _SUCCESS
        found.append(normal_bus_id(text.value.decode("ascii", errors="replace")) if asked else "")
    return found
