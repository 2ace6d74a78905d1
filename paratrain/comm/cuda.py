"""CUDA and NCCL for the exchanges between GPUs, through CuPy. The only module of comm that uses cupy.

Not yet run on a GPU: written after the documentation of CUDA's runtime and of NCCL and the sources of CuPy 14. Its kernel was
compiled for several GPUs by NVRTC, which needs none.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.comm.communicator import Array
from paratrain.comm.cuda_nccl import NcclGroup
from paratrain.comm.device import Collectives, DeviceArray
from paratrain.comm.progress import Condition
from paratrain.errors import DeviceError

__all__ = ["ADD_SOURCE", "CupyDevice", "add_name"]

_PROCESS = secrets.token_hex(8)
_BLOCK_BYTES = 2 * 2**20
"""Blocks of whole pages of the GPU, so that nothing else lies in what a handle opens."""
_OUT_OF_MEMORY = 2
_NOT_READY = 600
_PEER_ACCESS_ALREADY_ENABLED = 704
_FIRST_SHARING_NCCL = 23003
_THREADS = 256
_BLOCKS_PER_PROCESSOR = 8
_MOST_ARRAYS = 16

ADD_SOURCE = """
// out = scale * (((a0 + a1) + a2) + ...) over the first N of the arrays, in this order. out may be one of them: an element is
// read and written by the same thread. Four elements of a thread are read before the first is written, which keeps enough
// reads under way to fill the memory's bandwidth, or that of a link to another GPU.
template <typename T, int N>
__global__ void add(PARAMETERS, T scale, T* out, long long count) {
    const T* const arrays[16] = {ARGUMENTS};
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += 4 * step) {
        T total[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const long long place = i + k * step;
            if (place < count) {
                total[k] = arrays[0][place];
#pragma unroll
                for (int n = 1; n < N; ++n) {
                    total[k] += arrays[n][place];
                }
            }
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const long long place = i + k * step;
            if (place < count) {
                out[place] = scale * total[k];
            }
        }
    }
}
""".replace("PARAMETERS", ", ".join(f"const T* a{n}" for n in range(_MOST_ARRAYS))).replace(
    "ARGUMENTS", ", ".join(f"a{n}" for n in range(_MOST_ARRAYS))
)


def add_name(dtype: npt.DTypeLike, array_count: int) -> str:
    """The instance of the kernel in ADD_SOURCE for so many arrays."""
    return f"add<{ {'f4': 'float', 'f8': 'double'}[np.dtype(dtype).str[1:]] }, {array_count}>"


class CupyDevice:
    """See :class:`paratrain.comm.device.ExchangeDevice`. Arrays are cupy.ndarray.

    The computation's stream is `compute_stream`, or where that is None the stream that is current when it is asked about.
    Numbers below the smallest normal ones are added as zeros, as CuPy's kernels do.
    """

    def __init__(self, index: int = 0, compute_stream: Any = None) -> None:
        cupy = gpu.library()
        self._cupy: Any = cupy
        self._runtime: Any = cupy.cuda.runtime
        self._index = index
        self.compute_stream: Any = compute_stream
        self._kernels: dict[tuple[str, int], Any] = {}
        self._scratch: DeviceArray = None
        with self._errors(f"GPU {index}"):
            self._bus_id = str(self._runtime.deviceGetPCIBusId(index))
            properties = self._runtime.getDeviceProperties(index)
            self._uuid = gpu.uuid_text(properties)
            self._most_blocks = _BLOCKS_PER_PROCESSOR * int(properties["multiProcessorCount"])
            self._device = cupy.cuda.Device(index)
            with self._device:
                self._stream = cupy.cuda.Stream(non_blocking=True)

    @property
    def identity(self) -> str:
        return f"{self._bus_id} {self._uuid}"  # instances of one GPU (MIG) have one bus id

    @property
    def description(self) -> str:
        return f"GPU {self._index} ({self._bus_id})"

    @property
    def process(self) -> str:
        return f"{_PROCESS}-{os.getpid()}"

    # -- memory --------------------------------------------------------------------------------------------------

    def allocate(self, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        """Straight from cudaMalloc: a handle would open the memory of CuPy's pool at the wrong place."""
        byte_count = max(count * np.dtype(dtype).itemsize, 1)
        byte_count = -(-byte_count // _BLOCK_BYTES) * _BLOCK_BYTES
        with self._call(
            f"allocating {byte_count:,} bytes on {self.description} for {count:,} values that ranks exchange"
        ):
            memory = self._new_block(byte_count)
            array = self._cupy.ndarray((count,), dtype, memptr=self._cupy.cuda.MemoryPointer(memory, 0))
            self._runtime.memsetAsync(memory.ptr, 0, byte_count, self._stream.ptr)
            self._stream.synchronize()
        return array

    def _new_block(self, byte_count: int) -> Any:
        try:
            return self._cupy.cuda.Memory(byte_count)
        except self._runtime.CUDARuntimeError as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            self._cupy.get_default_memory_pool().free_all_blocks()  # what it keeps for arrays to come, if anything
            return self._cupy.cuda.Memory(byte_count)

    def export(self, array: DeviceArray) -> bytes:
        with self._call("cudaIpcGetMemHandle"):
            return bytes(self._runtime.ipcGetMemHandle(array.data.ptr))

    def open(self, handle: bytes, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        with self._call("cudaIpcOpenMemHandle"):
            address = self._runtime.ipcOpenMemHandle(handle)  # enables access to the other GPU, where it is another one
            byte_count = count * np.dtype(dtype).itemsize
            memory = self._cupy.cuda.UnownedMemory(address, byte_count, None, self._index)
            return self._cupy.ndarray((count,), dtype, memptr=self._cupy.cuda.MemoryPointer(memory, 0))

    def close(self, array: DeviceArray) -> None:
        with self._call("cudaIpcCloseMemHandle"):
            self._runtime.ipcCloseMemHandle(array.data.ptr)

    def reach(self, array: DeviceArray) -> None:
        other = array.device.id
        if other == self._index:
            return
        with self._call(f"access to GPU {other}"):
            if not self._runtime.deviceCanAccessPeer(self._index, other):
                raise DeviceError(f"it has no direct access to GPU {other}")
            try:
                self._runtime.deviceEnablePeerAccess(other)
            except self._runtime.CUDARuntimeError as error:
                if error.status != _PEER_ACCESS_ALREADY_ENABLED:
                    raise

    def pin(self, host: Array) -> bool:
        with self._device:
            try:
                self._runtime.hostRegister(host.ctypes.data, host.nbytes, 0)
            except self._runtime.CUDARuntimeError:
                return False
        return True

    def unpin(self, host: Array) -> None:
        with self._call("cudaHostUnregister"):
            self._runtime.hostUnregister(host.ctypes.data)

    # -- work ----------------------------------------------------------------------------------------------------

    def add(self, arrays: Sequence[DeviceArray], scale: float, out: DeviceArray) -> None:
        count = len(out)
        if not count:
            return
        with self._call("adding gradients"), self._stream:
            head, rest = list(arrays[:_MOST_ARRAYS]), list(arrays[_MOST_ARRAYS:])
            while rest:  # `out` may be one of those to come
                if self._scratch is None or len(self._scratch) < count:
                    self._scratch = self._cupy.empty(count, out.dtype)
                self._launch(head, 1.0, self._scratch[:count])
                head = [self._scratch[:count], *rest[: _MOST_ARRAYS - 1]]
                rest = rest[_MOST_ARRAYS - 1 :]
            self._launch(head, scale, out)

    def _launch(self, arrays: Sequence[DeviceArray], scale: float, out: DeviceArray) -> None:
        key = out.dtype.str, len(arrays)
        if key not in self._kernels:
            name = add_name(*key)
            module = self._cupy.RawModule(code=ADD_SOURCE, options=("-std=c++17",), name_expressions=(name,))
            self._kernels[key] = module.get_function(name)
        blocks = min(-(-len(out) // (4 * _THREADS)), self._most_blocks)
        unused = [out] * (_MOST_ARRAYS - len(arrays))
        self._kernels[key]((blocks,), (_THREADS,), (*arrays, *unused, out.dtype.type(scale), out, np.int64(len(out))))

    def copy(self, source: DeviceArray, destination: DeviceArray) -> None:
        self._copy(source.data.ptr, destination.data.ptr, source.nbytes)

    def download(self, source: DeviceArray, host: Array) -> None:
        assert host.flags.c_contiguous
        self._copy(source.data.ptr, host.ctypes.data, source.nbytes)

    def upload(self, host: Array, destination: DeviceArray) -> None:
        assert host.flags.c_contiguous
        self._copy(host.ctypes.data, destination.data.ptr, destination.nbytes)

    def _copy(self, source: int, destination: int, byte_count: int) -> None:
        if byte_count:
            with self._call("a copy"):
                self._runtime.memcpyAsync(
                    destination, source, byte_count, self._runtime.memcpyDefault, self._stream.ptr
                )

    # -- order ---------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        with self._call("ordering streams"):
            self._stream.wait_event(self._record(self._computation()))

    def computed(self) -> Condition:
        with self._call("recording an event"):
            return self._question(self._record(self._computation()))

    def done(self) -> Condition:
        with self._call("recording an event"):
            return self._question(self._record(self._stream))

    def synchronize(self) -> None:
        with self._call("waiting for the GPU"):
            self._stream.synchronize()

    def _computation(self) -> Any:
        return self._cupy.cuda.get_current_stream() if self.compute_stream is None else self.compute_stream

    def _record(self, stream: Any) -> Any:
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def _question(self, event: Any) -> Condition:
        def ask() -> bool:
            status = self._runtime.eventQuery(event.ptr)
            if status not in (0, _NOT_READY):
                with self._errors("its work"):
                    raise self._runtime.CUDARuntimeError(status)
            return bool(status == 0)

        return ask

    # -- NCCL ----------------------------------------------------------------------------------------------------

    @property
    def nccl_problem(self) -> str:
        try:
            if self._nccl.available:
                return ""
        except Exception as error:  # of those who look for the library
            return f"CuPy cannot load NCCL: {error}"
        return "CuPy finds no NCCL library (pip install nvidia-nccl-cu13, or -cu12 for CUDA 12)"

    @property
    def nccl_shares_gpus(self) -> bool:
        """Newer versions of NCCL do, when they are told to."""
        return (
            os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
            and not self.nccl_problem
            and self._nccl.get_version() >= _FIRST_SHARING_NCCL
        )

    def nccl_identity(self) -> Any:
        with self._call("ncclGetUniqueId"):
            return self._nccl.get_unique_id()

    def join_nccl(self, identity: Any, size: int, rank: int) -> Collectives:
        with self._errors("ncclCommInitRank"):
            self._device.use()  # a thread of its own would go back to GPU 0 at the end, and begin to use memory there
            group = self._nccl.NcclCommunicator(size, identity, rank)
        return NcclGroup(self._call, self._nccl, group, self._stream.ptr, size, rank)

    @property
    def _nccl(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is no library, which `nccl_problem` tells
            return importlib.import_module("cupy.cuda.nccl")  # CuPy does not import it by itself

    @contextlib.contextmanager
    def _call(self, action: str) -> Iterator[None]:
        with self._errors(action), self._device:
            yield

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:  # CuPy's for CUDA and NCCL
            raise DeviceError(f"{action} failed: {error}") from error
