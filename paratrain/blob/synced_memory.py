"""One block of values that may lie on the host, on a device, or on both, and is copied only when somebody asks.

The states and their names are Caffe's (``SyncedMemory``), with one more for backends that keep values on the host in an
order of their own (see :class:`Arrangement`), which takes the place of the device then::

    UNINITIALIZED --any read--> zeros where it was read
    AT_CPU     the host's plain array holds the newest values
    AT_GPU     the device does
    ARRANGED   an arrangement does
    SYNCED     the plain array and the device, or the arrangement, hold the same
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.blob.limits import check_bytes

__all__ = ["Arrangement", "Device", "Head", "Memory", "MemorySlice", "SyncedMemory", "aligned_zeros"]

_ALIGNMENT = 64  # a cache line, and the widest vector registers

HostArray = npt.NDArray[Any]


class Device(Protocol):
    """What a memory needs of a device: flat arrays there, and copies both ways."""

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a new flat device array of ``count`` zeros."""

    def upload(self, host: HostArray, device: Any) -> None:
        """Copy the flat ``host`` array to the flat ``device`` array; done, or ordered before later work there, on return."""

    def download(self, device: Any, host: HostArray) -> None:
        """Copy the flat ``device`` array to the flat ``host`` array; done on return."""


class Arrangement(Protocol):
    """The values of a block on the host in another order than the plain one, such as blocks of channels."""

    def write_plain(self, host: HostArray) -> None:
        """Write the values to the first of the flat ``host`` array, in plain order."""


class Head(enum.Enum):
    """Where the newest values lie."""

    UNINITIALIZED = "uninitialized"
    AT_CPU = "at cpu"
    AT_GPU = "at gpu"
    ARRANGED = "arranged"
    SYNCED = "synced"


class Memory(Protocol):
    """A flat run of ``count`` values of one ``dtype``; the four accessors return flat arrays that alias it.

    The ``mutable_`` forms promise that the caller writes: the other side is out of date from then on.
    """

    @property
    def count(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def version(self) -> int: ...
    @property
    def arrangement(self) -> Any: ...
    def host(self) -> HostArray: ...
    def mutable_host(self) -> HostArray: ...
    def device(self, device: Device) -> Any: ...
    def mutable_device(self, device: Device) -> Any: ...


class SyncedMemory:
    """A block of its own, allocated (and zeroed) on each side when that side is first used.

    ``host`` gives the block host memory that somebody else owns, such as a window shared between ranks.
    A block works with one device over its life.
    """

    def __init__(self, count: int, dtype: npt.DTypeLike = np.float32, host: HostArray | None = None) -> None:
        self._count = count
        self._dtype = np.dtype(dtype)
        self._host = host
        self._device_array: Any = None
        self.kept_arrangement: Any = None
        """The arrangement last used, whose values may be out of date: its buffer can be written anew."""
        self.version = 0
        """Rises whenever somebody takes the values for writing."""
        self._place: HostArray | None = None
        self._in_place: HostArray | None = None
        self._arranged_in_place: Any = None
        self.head = Head.UNINITIALIZED if host is None else Head.AT_CPU
        if host is not None:
            assert host.shape == (count,) and host.dtype == self._dtype and host.flags.c_contiguous

    @property
    def count(self) -> int:
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def host(self) -> HostArray:
        """The values on the host, for reading."""
        if self.head is Head.AT_GPU:
            self._device.download(self._device_array, self._allocated_host())
            self.head = Head.SYNCED
        elif self.head is Head.ARRANGED:
            self.kept_arrangement.write_plain(self._allocated_host())
            self.head = Head.SYNCED
        elif self.head is Head.UNINITIALIZED:
            self._place = None  # it holds others' values, and zeros are to be read
            self.head = Head.AT_CPU
        return self._allocated_host()

    def mutable_host(self) -> HostArray:
        """The values on the host, for writing; a copy elsewhere is out of date from now on."""
        if self.head is Head.UNINITIALIZED and self._place is not None:
            self._allocated_host()
        array = self.host()
        self.head = Head.AT_CPU
        self.version += 1
        return array

    def device(self, device: Device) -> Any:
        """The values on ``device``, for reading."""
        if self._device_array is None:
            self._device = device
            self._device_array = device.zeros(self._count, self._dtype)
        assert device is self._device, "a block of memory belongs to one device"
        assert self.kept_arrangement is None, "a block of memory is on a device or arranged, not both"
        if self.head is Head.AT_CPU:
            device.upload(self._allocated_host(), self._device_array)
            self.head = Head.SYNCED
        elif self.head is Head.UNINITIALIZED:
            self.head = Head.AT_GPU
        return self._device_array

    def mutable_device(self, device: Device) -> Any:
        """The values on ``device``, for writing; the host's copy is out of date from now on."""
        array = self.device(device)
        self.head = Head.AT_GPU
        self.version += 1
        return array

    @property
    def arrangement(self) -> Any:
        """The arrangement that holds the newest values; None where none does."""
        return self.kept_arrangement if self.head is Head.ARRANGED or self.head is Head.SYNCED else None

    def arrange(self, arrangement: Arrangement) -> None:
        """Say that ``arrangement`` is about to get the newest values; the plain array is out of date from now on."""
        self.kept_arrangement = arrangement
        self.head = Head.ARRANGED
        self.version += 1

    def add_arrangement(self, arrangement: Arrangement) -> None:
        """Say that ``arrangement`` holds the same values as the plain array, which are the newest."""
        assert self.head is Head.AT_CPU or self.head is Head.SYNCED
        self.kept_arrangement = arrangement
        self.head = Head.SYNCED

    def settle(self) -> None:
        """Make the plain array, if there is one, the place of the newest values: whoever holds it may read and write it."""
        if self._host is not None and self.arrangement is not None:
            self.mutable_host()

    def use_place(self, place: HostArray) -> None:
        """Drop the values, and put those that are written next into ``place``, bytes of a larger array in which others may lie
        before and after. Until then zeros are read, from elsewhere.
        """
        self._host = self.kept_arrangement = self._in_place = self._arranged_in_place = None
        self._place = place
        self.head = Head.UNINITIALIZED
        self.version += 1

    def take_place(self, size_bytes: int, arrangement: Any = None) -> HostArray | None:
        """Return the bytes in which to put the values, plain or in an ``arrangement`` (whose attribute ``array`` they become);
        None where none are offered, or too few, or they are taken.
        """
        place = self._place
        if place is None or place.nbytes < size_bytes:
            return None
        self._place, self._arranged_in_place = None, arrangement
        self._in_place = place[:size_bytes]
        return self._in_place

    def leave_place(self) -> None:
        """Move to memory of its own, with the values."""
        taken, arrangement, self._place = self._in_place, self._arranged_in_place, None
        self._in_place = self._arranged_in_place = None
        if taken is None:
            return
        own = aligned_zeros(taken.nbytes, np.uint8)
        own[...] = taken
        if arrangement is not None:
            arrangement.array = own
        else:
            self._host = own.view(self._dtype)

    def _allocated_host(self) -> HostArray:
        if self._host is None:
            place = self.take_place(self._count * self._dtype.itemsize)
            self._host = None if place is None else place.view(self._dtype)
        if self._host is None:
            check_bytes(self._count * self._dtype.itemsize, f"a block of {self._count:,} values")
            self._host = aligned_zeros(self._count, self._dtype)
        return self._host


class MemorySlice:
    """Values ``start`` to ``stop`` of another memory: the state is the whole block's."""

    def __init__(self, whole: Memory, start: int, stop: int) -> None:
        assert 0 <= start <= stop <= whole.count
        self._whole = whole
        self._range = slice(start, stop)
        self._seen: HostArray | None = None
        self._part: HostArray | None = None

    @property
    def whole(self) -> Memory:
        """The memory that this is a part of."""
        return self._whole

    @property
    def count(self) -> int:
        return self._range.stop - self._range.start

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._whole.dtype

    @property
    def version(self) -> int:
        """Rises whenever somebody takes values of the whole block for writing."""
        return self._whole.version

    @property
    def arrangement(self) -> None:
        """None: only whole blocks are ever arranged."""
        return None

    def host(self) -> HostArray:
        return self._part_of(self._whole.host())

    def mutable_host(self) -> HostArray:
        return self._part_of(self._whole.mutable_host())

    def device(self, device: Device) -> Any:
        return self._whole.device(device)[self._range]

    def mutable_device(self, device: Device) -> Any:
        return self._whole.mutable_device(device)[self._range]

    def _part_of(self, whole: HostArray) -> HostArray:
        """The same array for the same ``whole``: who remembers where it lies need not ask again."""
        if whole is not self._seen or self._part is None:
            self._seen, self._part = whole, whole[self._range]
        return self._part


def aligned_zeros(count: int, dtype: npt.DTypeLike) -> HostArray:
    """Return a new flat array that begins at a cache line; the system gives memory to those parts of it that are written."""
    dtype = np.dtype(dtype)
    raw = np.zeros(count * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype)
