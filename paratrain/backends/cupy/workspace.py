"""Memory that everything on a stream lends for the time of one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.device import CudaDevice

__all__ = ["Workspace"]


class Workspace:
    """One block on the GPU: whoever takes it may use it until somebody takes it again, which is right for work on one stream.

    It is allocated when first taken, as large as anybody has said before that he will want it, so that it hardly ever grows.
    Blocks that become too small stay once ``is_recorded``: recorded graphs may use them.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._wanted_bytes = 0
        self.is_recorded = False
        """Whether work that takes it has been recorded, to run again."""
        self._block: Any = None
        self._outgrown: list[Any] = []

    def reserve(self, byte_count: int) -> None:
        """Say that so many bytes will be taken at once."""
        self._wanted_bytes = max(self._wanted_bytes, byte_count)

    def take(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a flat array of ``count`` values that are not set. Raises DeviceError where memory is short."""
        dtype = np.dtype(dtype)
        self.reserve(count * dtype.itemsize)
        if self._block is None or self._block.size < count * dtype.itemsize:
            if self._block is not None and self.is_recorded:
                self._outgrown.append(self._block)
            self._block = None  # before the larger one is looked for
            self._block = self._device.empty(-(-self._wanted_bytes // 512) * 512, np.uint8)
        return self._block[: count * dtype.itemsize].view(dtype)
