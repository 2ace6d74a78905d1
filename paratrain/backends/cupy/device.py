"""Memory on the GPU of this process, as blobs need it: flat arrays, and copies both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.blob.synced_memory import HostArray
from paratrain.errors import DeviceError, DeviceFullError

__all__ = ["CudaDevice"]


class CudaDevice:
    """The GPU that was current when it was made; see :class:`paratrain.blob.synced_memory.Device`.

    Copies go to the current stream, and a copy to the host waits for it. Raises DeviceError where memory is short.
    """

    def __init__(self) -> None:
        self._cupy = gpu.library()
        self.number = int(self._cupy.cuda.Device().id)
        properties = self._cupy.cuda.runtime.getDeviceProperties(self.number)
        # Where a GPU walks the processor's page tables (NVIDIA's Grace), a copy may read ordinary memory of the host at any time.
        self._reads_late = bool(properties.get("pageableMemoryAccessUsesHostPageTables", 0))

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        array = self.empty(count, dtype)
        array.fill(0)
        return array

    def empty(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a new flat array of ``count`` values that are not set."""
        try:
            return self._cupy.empty(count, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError:
            raise self.out_of_memory(count * np.dtype(dtype).itemsize) from None

    def upload(self, host: HostArray, device: Any) -> None:
        device.set(host)
        if self._reads_late:
            self._cupy.cuda.get_current_stream().synchronize()

    def download(self, device: Any, host: HostArray) -> None:
        device.get(out=host)

    def out_of_memory(self, wanted_bytes: int) -> DeviceFullError:
        """Return the error that tells how many bytes were wanted and how many there are."""
        free, total = self._cupy.cuda.runtime.memGetInfo()
        pool = self._cupy.get_default_memory_pool()
        free += pool.free_bytes()
        return DeviceFullError(
            f"GPU {self.number} is full: {wanted_bytes:,} bytes were wanted, {free:,} of its {total:,} are free",
            wanted_bytes=wanted_bytes,
            free_bytes=free,
            used_bytes=pool.used_bytes(),
        )

    def error(self, error: BaseException) -> DeviceError | None:
        """What an exception of CuPy's says of the GPU; None where it is not about the GPU."""
        cuda = self._cupy.cuda
        if isinstance(error, cuda.memory.OutOfMemoryError):
            return self.out_of_memory(int(getattr(error, "_size", 0)))
        if type(error).__name__ in ("CUDARuntimeError", "CUDADriverError"):
            return DeviceError(
                f"GPU {self.number} failed: {error}. CUDA reports late: what was given to it shortly before may be the cause. "
                "Nothing more can be computed in this process; nvidia-smi and the system's log (Xid) tell more of a lost GPU"
            )
        return None
