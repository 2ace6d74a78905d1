"""The CuPy backend: arrays on one GPU, kernels of our own, products of cuBLAS, convolutions of cuDNN where it is installed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.backends.base import (
    BACKENDS,
    Backend,
    Convolution,
    ConvolutionGeometry,
    Im2col,
    LocalResponseGeometry,
    LocalResponseNormalization,
    Pooling,
    PoolingGeometry,
)
from paratrain.backends.cupy.blas import Blas
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.faults import Faults
from paratrain.backends.cupy.forms import Forms
from paratrain.backends.cupy.graph import CudaGraph, capture
from paratrain.backends.cupy.parameter_work import ParameterWork
from paratrain.backends.cupy.precision import Precision
from paratrain.backends.cupy.scatter import add_at, put_at
from paratrain.backends.cupy.timing import EventTimer
from paratrain.backends.cupy.updates import CupyUpdate
from paratrain.backends.cupy.workspace import Workspace
from paratrain.errors import BackendError, DeviceError

if TYPE_CHECKING:
    from paratrain.backends.cupy.cudnn.runner import CudnnRunner

__all__ = ["CupyBackend"]


@BACKENDS.register("cupy")
class CupyBackend(Backend):
    """Computes on the GPU that is current when it is made, in a stream of its own.

    Layers that have a class in ``paratrain.layers.cupy`` run by kernels, and in ``precision``; all others run the shared array
    code on CuPy, in float32. Gives the same bits in each run, unless it is ``fast``, which allows cuDNN's kernels that do not.
    With ``autotune`` cuDNN's kernels are measured when first used, and the quickest are kept for later runs.
    Threads that use it at the same time go through :meth:`alone`. Raises BackendError where no GPU can be used, or this one not
    in that precision.
    """

    name = "cupy"
    has_fast = True
    precision: Precision
    """In which numbers it computes."""

    def __init__(
        self, precision: Precision | str = Precision.FLOAT32, *, fast: bool = False, autotune: bool = False
    ) -> None:
        self.precision = Precision(precision)
        self.fast, self.autotune = fast, autotune
        self.xp = gpu.library()
        self.device: CudaDevice = CudaDevice()
        properties = self.xp.cuda.runtime.getDeviceProperties(self.device.number)
        problem = self.precision.problem((int(properties["major"]), int(properties["minor"])))
        if problem is not None:
            raise BackendError(f"GPU {self.device.number} ({properties['name'].decode()}): {problem}")
        current = self.xp.cuda.get_current_stream()
        # Backends of one thread share a stream: kernels go to the current one, whichever backend they are of.
        self.stream = current if current.ptr else self.xp.cuda.Stream()
        # It stays the current one for good. What `use` makes current is forgotten at the end of the next `with` of a stream,
        # which CuPy writes even within `get`, and the null stream would come after it.
        contextlib.ExitStack().enter_context(self.stream)
        self.device.stream = self.stream
        self.forms = Forms(self.device)
        self.faults = Faults(self.device)
        """What kernels have found wrong."""
        self.workspace = Workspace(self.device)
        self.blas = Blas(self.stream, allow_tf32=self.precision is Precision.TF32, fast=fast)

    @classmethod
    def problem(cls) -> str | None:
        return gpu.problem()

    @property
    def description(self) -> str:
        properties = self.xp.cuda.runtime.getDeviceProperties(self.device.number)
        bus_id = self.xp.cuda.runtime.deviceGetPCIBusId(self.device.number).lower()
        return f"GPU {self.device.number} ({properties['name'].decode()}, bus {bus_id}), {self.precision.value}"

    @functools.cached_property
    def cudnn(self) -> CudnnRunner | None:
        """cuDNN on the backend's stream; None, with a line in the log, where it cannot be used."""
        from paratrain.backends.cupy.cudnn.runner import create_runner

        return create_runner(self.stream, self.workspace, self.precision, fast=self.fast, measures=self.autotune)

    def convolution(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Convolution:
        from paratrain.backends.cupy.convolution import CupyConvolution

        return CupyConvolution(self, geometry, dtype)

    def im2col(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Im2col:
        from paratrain.backends.cupy.im2col import CupyIm2col

        return CupyIm2col(self.forms, geometry, dtype)

    def pooling(self, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> Pooling:
        from paratrain.backends.cupy.pooling import CupyPooling

        return CupyPooling(self.forms, geometry, dtype)

    def local_response_normalization(
        self, geometry: LocalResponseGeometry, dtype: npt.DTypeLike
    ) -> LocalResponseNormalization:
        from paratrain.backends.cupy.lrn import CupyLocalResponseNormalization

        return CupyLocalResponseNormalization(self.forms, geometry, dtype)

    def matrix_product(self, a: Any, b: Any, out: Any, *, accumulate: bool = False) -> None:
        self.blas.product(a, b, out, beta=1.0 if accumulate else 0.0)

    def device_update(self, run_stops: Sequence[int], dtype: npt.DTypeLike) -> CupyUpdate | None:
        if run_stops and run_stops[-1] > np.iinfo(np.int32).max:  # its kernels count in 32 bits
            return None
        return CupyUpdate(self.forms, run_stops, dtype)

    @property
    def prefers_channels_last(self) -> bool:
        """Whether the layers that see images first want their channels innermost."""
        return self.cudnn is not None and self.cudnn.channels_last

    def copy(self, source: Any, target: Any) -> None:
        """Copy the values of one contiguous array to another of the same type, in the stream."""
        assert source.nbytes == target.nbytes
        runtime = self.xp.cuda.runtime
        runtime.memcpyAsync(
            target.data.ptr, source.data.ptr, source.nbytes, runtime.memcpyDeviceToDevice, self.stream.ptr
        )

    def on_device(self) -> contextlib.AbstractContextManager[object]:
        return self.device.current()

    def alone(self) -> contextlib.AbstractContextManager[object]:
        return self.device.alone()

    can_record = True

    def record(self, run: Callable[[], None]) -> CudaGraph | None:
        # Alone: what other threads gave to the stream meanwhile would be recorded too.
        with self.alone(), self.workspace.recording() as used:
            work = ParameterWork(self.forms, self.precision.storage)
            graph = capture(self.stream, lambda: work.gather(run))
            if graph is not None:
                work.be_ready()
                graph.before, graph.used = work.do_early, used
        return graph

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def device_error(self, error: BaseException) -> DeviceError | None:
        return self.device.error(error)

    def uniform_rows(self, key: int, rows: range, out: Any) -> None:
        sizes = out.shape[1], rows.start, rows.step
        self.forms.kernels("random", out.dtype).launch("uniform_rows", out.size, out, None, np.uint64(key), *sizes)

    def add_at(self, target: Any, places: Any, values: Any) -> None:
        add_at(self.forms, target, places, values)

    def put_at(self, target: Any, places: Any, values: Any) -> None:
        put_at(self.forms, target, places, values)

    def check_faults(self) -> None:
        self.faults.check()

    def timer(self) -> EventTimer:
        return EventTimer(self.stream)

    def synchronize(self) -> None:
        self.stream.synchronize()
