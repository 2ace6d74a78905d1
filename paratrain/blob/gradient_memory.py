"""The gradients of all parameters in one block, cleared without a pass over it: who writes first overwrites."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.blob.memory_slice import MemorySlice
from paratrain.blob.synced_memory import Device, HostArray, Memory

__all__ = ["GradientMemory", "GradientSlice"]


class GradientSlice(MemorySlice):
    """The gradient of one parameter, which may be cleared: then it counts as zeros whatever the array still holds.

    Whoever takes the array finds the zeros there, for they are written then; but whoever is about to overwrite all of it
    says so by :meth:`claim` before, and they never are.
    """

    def __init__(self, whole: Memory, start: int, stop: int) -> None:
        super().__init__(whole, start, stop)
        self.is_cleared = False

    def claim(self) -> bool:
        """Return whether it is cleared. Then it is no longer: the caller has to write all values."""
        was_cleared, self.is_cleared = self.is_cleared, False
        return was_cleared

    def settle(self, device: Device | None = None) -> None:
        """Write the zeros, if it is cleared, where ``device`` (None: the host) works."""
        if self.claim():
            array = super().mutable_host() if device is None else super().mutable_device(device)
            array.fill(0)

    def host(self) -> HostArray:
        if self.is_cleared:
            self.settle()
        return super().host()

    def mutable_host(self) -> HostArray:
        if self.is_cleared:
            self.settle()
        return super().mutable_host()

    def device(self, device: Device) -> Any:
        if self.is_cleared:
            self.settle(device)
        return super().device(device)

    def mutable_device(self, device: Device) -> Any:
        if self.is_cleared:
            self.settle(device)
        return super().mutable_device(device)


class GradientMemory:
    """The block as a whole. Taking its array settles every slice; holders of an array from before call :meth:`settle`."""

    def __init__(self, block: Memory) -> None:
        self._block = block
        self._slices: list[tuple[int, int, GradientSlice]] = []

    def slice(self, start: int, stop: int) -> GradientSlice:
        """Return the memory of a parameter whose gradient is the values ``start`` to ``stop``."""
        part = GradientSlice(self._block, start, stop)
        self._slices.append((start, stop, part))
        return part

    @property
    def slices(self) -> list[GradientSlice]:
        """The gradients of the parameters, in the order of the net."""
        return [part for _, _, part in self._slices]

    @property
    def cleared(self) -> list[bool]:
        """Of each of these, whether it is cleared."""
        return [part.is_cleared for _, _, part in self._slices]

    def clear(self) -> None:
        """Make all gradients zero."""
        for _, _, part in self._slices:
            part.is_cleared = True

    def settle(self, start: int = 0, stop: int | None = None, device: Device | None = None) -> None:
        """Write the zeros of cleared slices that have any of the values ``start`` to ``stop`` (the end where None)."""
        for first, last, part in self._slices:
            if part.is_cleared and last > start and (stop is None or first < stop):
                part.settle(device)

    def take_device(self, device: Device) -> Any:
        """The array on ``device``, for writing, without a look at what is cleared there: callers settle what they use."""
        return self._block.mutable_device(device)

    @property
    def count(self) -> int:
        return self._block.count

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._block.dtype

    @property
    def version(self) -> int:
        return self._block.version

    @property
    def arrangement(self) -> None:
        """None: gradients of parameters stay in plain order."""
        return None

    def host(self) -> HostArray:
        self.settle()
        return self._block.host()

    def mutable_host(self) -> HostArray:
        self.settle()
        return self._block.mutable_host()

    def device(self, device: Device) -> Any:
        self.settle(device=device)
        return self._block.device(device)

    def mutable_device(self, device: Device) -> Any:
        self.settle(device=device)
        return self._block.mutable_device(device)
