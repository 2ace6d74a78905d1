"""One block of values that may lie on the host, on a device, or on both, and is copied only when somebody asks.

The newest values may lie in up to three places: the plain array on the host, the plain array on the device, and an
arrangement, in which a backend keeps them in an order or type of its own (see :class:`Arrangement`), on the host or on the
device. Any two that hold them hold the same. The states and their names are Caffe's (``SyncedMemory``), with one more::

    UNINITIALIZED --any read--> zeros where it was read
    AT_CPU     only the host's plain array holds the newest values
    AT_GPU     only the device's does
    ARRANGED   only the arrangement does
    SYNCED     several places hold them
"""

from __future__ import annotations

import enum
import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.blob.limits import check_bytes

__all__ = [
    "Arrangement",
    "Device",
    "DeviceArrangement",
    "Head",
    "Memory",
    "SyncedMemory",
    "aligned_zeros",
]

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
    """The values of a block in another order or type than the plain ones, such as blocks of channels."""

    def write_plain(self, host: HostArray) -> None:
        """Write the values to the first of the flat ``host`` array, in plain order."""


class DeviceArrangement(Arrangement, Protocol):
    """One that lies on a device."""

    def write_device(self, device_array: Any) -> None:
        """Write the values to the first of the flat array on the device, in plain order."""


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

    ``host`` gives the block host memory that somebody else owns, such as a window shared between ranks; ``on_device`` a device
    and a flat array there, which it keeps. A block works with one device over its life.
    """

    def __init__(
        self,
        count: int,
        dtype: npt.DTypeLike = np.float32,
        host: HostArray | None = None,
        on_device: tuple[Device, Any] | None = None,
    ) -> None:
        self._count = count
        self._dtype = np.dtype(dtype)
        self._host = host
        self._device: Device | None = None
        self._device_array: Any = None
        self.kept_arrangement: Any = None
        """The arrangement last used, whose values may be out of date: its buffer can be written anew."""
        self.arrangements: dict[Any, Any] = {}
        """For a backend that keeps several, in turn the newest: by what tells them apart, the one last used of each kind."""
        self.version = 0
        """Rises whenever somebody takes the values for writing."""
        self._place: Any = None
        self._in_place: Any = None
        self._arranged_in_place: Any = None
        # Which places hold the newest values.
        self._on_host, self._on_device, self._is_arranged = host is not None, False, False
        if host is not None:
            assert host.shape == (count,) and host.dtype == self._dtype and host.flags.c_contiguous
        if on_device is not None:
            assert host is None, "the newest values lie in one of the two"
            self._device, self._device_array = on_device
            self._on_device = True

    @property
    def count(self) -> int:
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def head(self) -> Head:
        """Where the newest values lie."""
        if not (self._on_host or self._on_device or self._is_arranged):
            return Head.UNINITIALIZED
        places = self.places
        return (Head.AT_CPU, Head.AT_GPU, Head.ARRANGED)[places.index(True)] if sum(places) == 1 else Head.SYNCED

    def host(self) -> HostArray:
        """The values on the host, for reading."""
        if not self._on_host:
            if self._on_device:
                assert self._device is not None
                self._device.download(self._device_array, self._allocated_host())
            elif self._is_arranged:
                self.kept_arrangement.write_plain(self._allocated_host())
            elif isinstance(self._place, np.ndarray):
                self._place = None  # it holds others' values, and zeros are to be read
            self._on_host = True
        return self._allocated_host()

    def mutable_host(self) -> HostArray:
        """The values on the host, for writing; a copy elsewhere is out of date from now on."""
        if self._place is not None and not (self._on_host or self._is_arranged):
            self._allocated_host()
        array = self.host()
        self._on_device = self._is_arranged = False
        self.version += 1
        return array

    def device(self, device: Device) -> Any:
        """The values on ``device``, for reading."""
        if not self._on_device:
            self._allocate_on(device)
            if self._is_arranged:
                self.kept_arrangement.write_device(self._device_array)
            elif self._on_host:
                device.upload(self._allocated_host(), self._device_array)
            self._on_device = True
        return self._device_array

    def mutable_device(self, device: Device) -> Any:
        """The values on ``device``, for writing; copies elsewhere are out of date from now on."""
        if self._place is not None and not any(self.places):
            self._allocate_on(device, is_written=True)
        array = self.device(device)
        self._on_host = self._is_arranged = False
        self.version += 1
        return array

    def overwritten_device(self, device: Device) -> Any:
        """The same for whoever is about to write all values: those that lie elsewhere are not brought there first."""
        self._allocate_on(device, is_written=True)
        self._on_device = True
        return self.mutable_device(device)

    @property
    def arrangement(self) -> Any:
        """The arrangement that holds the newest values; None where none does."""
        return self.kept_arrangement if self._is_arranged else None

    def arrange(self, arrangement: Arrangement) -> None:
        """Say that ``arrangement`` is about to get the newest values; plain arrays are out of date from now on."""
        self.kept_arrangement = arrangement
        self._on_host, self._on_device, self._is_arranged = False, False, True
        self.version += 1

    def add_arrangement(self, arrangement: Arrangement) -> None:
        """Say that ``arrangement`` holds the same values as the plain array, which are the newest."""
        assert self._on_host or self._on_device
        self.kept_arrangement = arrangement
        self._is_arranged = True

    @property
    def places(self) -> tuple[bool, bool, bool]:
        """Whether the host's plain array, the device's, and the arrangement hold the newest values."""
        return self._on_host, self._on_device, self._is_arranged

    @property
    def is_on_device(self) -> bool:
        """Whether the device's plain array holds the newest values."""
        return self._on_device

    @property
    def device_bytes(self) -> int:
        """The bytes that its arrays take on a device."""
        arrays = (self._device_array, getattr(self.kept_arrangement, "array", None))
        return sum(int(array.nbytes) for array in arrays if array is not None and not isinstance(array, np.ndarray))

    def note_places(self, places: tuple[bool, bool, bool]) -> None:
        """Say that somebody has written the values there without asking: a recorded pass over a net that runs again."""
        self._on_host, self._on_device, self._is_arranged = places
        self.version += 1

    def settle(self) -> None:
        """Make the plain array, if somebody else holds one, the place of the newest values: who does may read and write it."""
        if self._host is not None and (self._on_device or self._is_arranged) and _is_shared(self):
            self.mutable_host()

    def use_place(self, place: Any) -> None:
        """Drop the values, and put those that are written next into ``place``, bytes of a larger array in which others may lie
        before and after, where the backend works: on the host or on the device. Until then zeros are read, from elsewhere.
        """
        self._host = self._device_array = self.kept_arrangement = self._in_place = self._arranged_in_place = None
        self._place, self.arrangements = place, {}
        self._on_host = self._on_device = self._is_arranged = False
        self.version += 1

    def take_place(self, size_bytes: int, arrangement: Any = None) -> Any:
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
        is_on_host = isinstance(taken, np.ndarray)
        own = aligned_zeros(taken.nbytes, np.uint8) if is_on_host else taken.copy()
        own[...] = taken
        if arrangement is not None:
            arrangement.array = own.view(arrangement.array.dtype)
        elif is_on_host:
            self._host = own.view(self._dtype)
        else:
            self._device_array = own.view(self._dtype)

    def _allocate_on(self, device: Device, *, is_written: bool = False) -> None:
        """Make sure that there is a plain array on the device: in the place, if its values are about to be written."""
        if self._device_array is not None:
            assert device is self._device, "a block of memory belongs to one device"
            return
        self._device = device
        if is_written and not (self._place is None or isinstance(self._place, np.ndarray)):
            place = self.take_place(self._count * self._dtype.itemsize)
            self._device_array = None if place is None else place.view(self._dtype)
        if self._device_array is None:
            self._device_array = device.zeros(self._count, self._dtype)

    def _allocated_host(self) -> HostArray:
        if self._host is None and isinstance(self._place, np.ndarray):
            place = self.take_place(self._count * self._dtype.itemsize)
            self._host = None if place is None else place.view(self._dtype)
        if self._host is None:
            check_bytes(self._count * self._dtype.itemsize, f"a block of {self._count:,} values")
            self._host = aligned_zeros(self._count, self._dtype)
        return self._host


def aligned_zeros(count: int, dtype: npt.DTypeLike) -> HostArray:
    """Return a new flat array that begins at a cache line; the system gives memory to those parts of it that are written."""
    dtype = np.dtype(dtype)
    raw = np.zeros(count * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype)


def _reference_counts(memory: SyncedMemory) -> tuple[int, int]:
    """How many refer to the plain array on the host, and to what it is a part of, as other parts of that do."""
    host = memory._host
    return sys.getrefcount(host), sys.getrefcount(None if host is None else host.base)


_fresh = SyncedMemory(1)
_fresh.mutable_host()
_ALONE = _reference_counts(_fresh)


def _is_shared(memory: SyncedMemory) -> bool:
    """Whether others than the memory itself hold its plain array on the host, or a part of it."""
    return any(count > alone for count, alone in zip(_reference_counts(memory), _ALONE, strict=True))
