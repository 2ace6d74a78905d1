"""Memory on the GPU of this process, as blobs need it: flat arrays, and copies both ways."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.blob.synced_memory import HostArray
from paratrain.errors import DeviceError, DeviceFullError

__all__ = ["CudaDevice"]

_OUT_OF_MEMORY = 2  # to CUDA's runtime and to its driver


class CudaDevice:
    """The GPU that was current when it was made; see :class:`paratrain.blob.synced_memory.Device`.

    Copies go to the stream, and a copy to the host waits for it. Raises DeviceError where memory is short.
    """

    stream: Any = None
    """The stream in which everybody works; None: the current one."""

    def __init__(self) -> None:
        self._cupy = gpu.library()
        self.number = int(self._cupy.cuda.Device().id)
        self._lock = threading.RLock()
        properties = self._cupy.cuda.runtime.getDeviceProperties(self.number)
        # Where a GPU walks the processor's page tables (NVIDIA's Grace), a copy may read ordinary memory of the host at any time.
        self._reads_late = bool(properties.get("pageableMemoryAccessUsesHostPageTables", 0))

    def current(self) -> contextlib.AbstractContextManager[object]:
        """A context in which this GPU and the stream are this thread's current ones.

        CUDA and CuPy remember both for each thread, which begins with GPU 0 and the null stream; and a thread may have nets
        on several GPUs. Kernels on another GPU would not reach the arrays, and copies in its streams would not wait for kernels.
        """
        cuda = self._cupy.cuda
        is_current = cuda.runtime.getDevice() == self.number
        if is_current and (self.stream is None or cuda.get_current_stream().ptr == self.stream.ptr):
            return contextlib.nullcontext()
        return self._switched()

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        cuda = self._cupy.cuda
        # A GPU on which this thread has no stream is not brought back: CUDA would begin to use memory there.
        before = cuda.Device() if cuda.get_current_stream().ptr else None
        cuda.Device(self.number).use()
        try:
            with self.stream or contextlib.nullcontext():
                yield
        finally:
            if before is not None:
                before.use()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The same, in which no other thread is: work space goes from piece to piece of the work in the stream's order."""
        with self._lock, self.current():
            yield

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        with self.alone():
            array = self.empty(count, dtype)
            array.fill(0)
        return array

    def empty(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a new flat array of ``count`` values that are not set."""
        try:
            with self.current():
                return self._cupy.empty(count, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError:
            raise self.out_of_memory(count * np.dtype(dtype).itemsize) from None

    def upload(self, host: HostArray, device: Any) -> None:
        with self.alone():
            device.set(host)
            if self._reads_late:
                self._cupy.cuda.get_current_stream().synchronize()

    def download(self, device: Any, host: HostArray) -> None:
        with self.alone():
            device.get(out=host)

    def out_of_memory(self, wanted_bytes: int) -> DeviceFullError:
        """Return the error that tells how many bytes were wanted (0: CUDA has not said it) and how many there are."""
        free, total = self._cupy.cuda.runtime.memGetInfo()
        pool = self._cupy.get_default_memory_pool()
        free += pool.free_bytes()
        wanted = f"{wanted_bytes:,} bytes were wanted" if wanted_bytes else "CUDA wanted bytes for itself"
        return DeviceFullError(
            f"GPU {self.number} is full: {wanted}, {free:,} of its {total:,} are free",
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
            if getattr(error, "status", 0) == _OUT_OF_MEMORY:  # for kernels, graphs, streams
                return self.out_of_memory(0)
            return DeviceError(
                f"GPU {self.number} failed: {error}. CUDA reports late: what was given to it shortly before may be the cause. "
                "Nothing more can be computed in this process; nvidia-smi and the system's log (Xid) tell more of a lost GPU"
            )
        return None
