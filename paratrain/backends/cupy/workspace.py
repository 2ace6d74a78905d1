"""Memory that everything on a stream lends for the time of one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.device import CudaDevice
from paratrain.errors import DeviceError

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

    @property
    def wanted_bytes(self) -> int:
        """The most that was said to be taken at once."""
        return self._wanted_bytes

    def shrink(self, wanted_bytes: int) -> None:
        """Forget what was said, and taken, since ``wanted_bytes`` were the most. Does nothing once ``is_recorded``."""
        if not self.is_recorded and wanted_bytes < self._wanted_bytes:
            self._wanted_bytes, self._block = wanted_bytes, None

    def take(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a flat array of ``count`` values that are not set. Raises DeviceError where memory is short."""
        dtype = np.dtype(dtype)
        byte_count = count * dtype.itemsize
        if self._block is None or self._block.size < byte_count:
            if self._block is not None and self.is_recorded:
                self._outgrown.append(self._block)
            self._block = None  # before the larger one is looked for
            try:
                self._block = self._allocate(max(byte_count, self._wanted_bytes))
            except DeviceError:
                if self._wanted_bytes <= byte_count:
                    raise
                self._block = self._allocate(byte_count)
        self.reserve(byte_count)  # not where there is no such memory: others can do with less
        return self._block[:byte_count].view(dtype)

    def _allocate(self, byte_count: int) -> Any:
        return self._device.empty(-(-byte_count // 512) * 512, np.uint8)
