"""What kernels find wrong with the values they are given, without anybody waiting for them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.device import CudaDevice

__all__ = ["Describe", "Faults"]

Describe = Callable[[int, float], Exception]
"""Makes an error of the position and the value at fault; a bound method."""

_PLACES = 64


class Faults:
    """Places on the GPU, 64 bits each, in which kernels note a fault: see ``report`` in kernels/labels.cuh.

    A place is 0, or holds ``2^32 - 1 - position`` in its upper half and the bits of a float32, the value at fault, in its lower.
    Of several faults the first position is kept, until :meth:`check` raises an error for it.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._blocks: list[Any] = []
        self._describe: list[weakref.WeakMethod[Describe]] = []

    def place(self, describe: Describe) -> Any:
        """Return a place, an array of one, for the object whose method ``describe`` makes the error; free when that is gone."""
        method = weakref.WeakMethod(describe)
        for index, other in enumerate(self._describe):
            if other() is None:
                self._describe[index] = method
                self._place(index).fill(0)
                return self._place(index)
        self._describe.append(method)
        if len(self._describe) > len(self._blocks) * _PLACES:
            self._blocks.append(self._device.zeros(_PLACES, np.uint64))
        return self._place(len(self._describe) - 1)

    def check(self) -> None:
        """Wait for the GPU, and raise the error of a fault that has been noted since the last check; all are forgotten then."""
        for number, block in enumerate(self._blocks):
            noted: npt.NDArray[np.uint64] = np.empty(_PLACES, np.uint64)
            self._device.download(block, noted)
            if not noted.any():
                continue
            for cleared in self._blocks:
                cleared.fill(0)
            for index in np.flatnonzero(noted):
                describe = self._describe[number * _PLACES + int(index)]()
                if describe is not None:
                    position = 0xFFFFFFFF - (int(noted[index]) >> 32)
                    value = np.array([int(noted[index]) & 0xFFFFFFFF], np.uint32).view(np.float32)
                    raise describe(position, float(value[0]))

    def _place(self, index: int) -> Any:
        return self._blocks[index // _PLACES][index % _PLACES : index % _PLACES + 1]
