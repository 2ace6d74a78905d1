"""Streams of the simulated GPU and the graphs that they capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

SOURCE = """
extern "C" __global__ void add(float* values, const float* more, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) values[i] += more[i];
}
"""


@pytest.fixture
def stream(simulated_gpu: Any) -> Iterator[Any]:
    stream = simulated_gpu.cuda.Stream(non_blocking=True)
    with stream:
        yield stream


@pytest.fixture(scope="module")
def add(simulated_gpu: Any) -> Any:
    kernel = simulated_gpu.RawModule(code=SOURCE).get_function("add")
    return lambda values, more: kernel((1,), (32,), (values, more, np.int32(values.size)))


def test_what_is_captured_is_done_at_each_launch(simulated_gpu: Any, stream: Any, add: Any) -> None:
    import cupyx
    import simulated

    cupy, runtime = simulated_gpu, simulated_gpu.cuda.runtime
    a, b, c = cupy.ones(40, np.float32), cupy.full(40, 2, np.float32), cupy.zeros(40, np.float32)
    pinned, host = cupyx.zeros_pinned(40, np.float32), []
    add(a, b)
    stream.begin_capture()
    assert stream.is_capturing()
    add(a, b)
    runtime.memcpyAsync(c.data.ptr, a.data.ptr, c.nbytes, runtime.memcpyDefault, stream.ptr)
    runtime.memsetAsync(b.data.ptr, 0, 8, stream.ptr)
    c *= 3
    cupy.subtract(c, 1, out=c)
    c[5] = 7
    runtime.memcpyAsync(pinned.ctypes.data, c.data.ptr, c.nbytes, runtime.memcpyDefault, stream.ptr)
    simulated.record(lambda: host.append(1))
    graph = stream.end_capture()
    assert not stream.is_capturing() and not host
    assert float(a[0]) == 3 and float(b[0]) == 2 and float(c.sum()) == 0
    graph.upload(stream)
    graph.launch(stream)
    assert (a.get()[[0, 2]].tolist(), b.get()[[0, 2]].tolist()) == ([5, 5], [0, 2])
    graph.launch()
    assert a.get()[[0, 2]].tolist() == [5, 7]
    assert c.get()[[0, 2, 5]].tolist() == pinned[[0, 2, 5]].tolist() == [14, 20, 7]
    assert host == [1, 1]


REFUSED: dict[str, tuple[Callable[[Any, Any, Any], object], type[Exception], str]] = {
    "an allocation": (lambda cupy, s, x: cupy.empty(3), RuntimeError, "allocation"),
    "cudaMalloc": (lambda cupy, s, x: cupy.cuda.Memory(512), RuntimeError, "cudaMalloc"),
    "a result": (lambda cupy, s, x: x + 1, RuntimeError, "cupy.add, which allocates"),
    "a reduction": (lambda cupy, s, x: x.sum(), RuntimeError, "cupy.sum"),
    "a reduction into an array": (lambda cupy, s, x: cupy.sum(x, axis=0, out=x[0]), RuntimeError, "cupy.sum"),
    "a copy of an array": (lambda cupy, s, x: x.T.ravel(), RuntimeError, "has to be copied"),
    "get": (lambda cupy, s, x: x.get(), RuntimeError, "copy to the host"),
    "float": (lambda cupy, s, x: float(x), RuntimeError, "copy to the host"),
    "get to pinned memory": (lambda cupy, s, x: _pinned(x, "get"), RuntimeError, "copy to the host"),
    "set": (lambda cupy, s, x: x.set(np.zeros((2, 3), np.float32)), RuntimeError, "copy from the host"),
    "set from pinned memory": (lambda cupy, s, x: _pinned(x, "set"), RuntimeError, "copy from the host"),
    "other views of a result": (lambda cupy, s, x: cupy.add(x[:], 1, out=x[:]), RuntimeError, "overlaps the result"),
    "asarray": (lambda cupy, s, x: cupy.asarray([1]), RuntimeError, "to the GPU"),
    "matmul": (lambda cupy, s, x: cupy.matmul(x, x.T), NotImplementedError, "cuBLAS"),
    "einsum": (lambda cupy, s, x: cupy.einsum("ij->i", x), NotImplementedError, "cuBLAS"),
    "synchronize": (lambda cupy, s, x: s.synchronize(), RuntimeError, "cudaStreamSynchronize"),
    "the device's": (lambda cupy, s, x: cupy.cuda.Device().synchronize(), RuntimeError, "cudaDeviceSynchronize"),
    "done": (lambda cupy, s, x: s.done, RuntimeError, "cudaStreamQuery"),
    "an event of it": (lambda cupy, s, x: s.record().synchronize(), RuntimeError, "cudaErrorCapturedEvent"),
    "a new module": (lambda cupy, s, x: cupy.RawModule(code=SOURCE + " ").get_function("add"), RuntimeError, "module"),
}


def _pinned(array: Any, action: str) -> None:
    """CuPy refuses these itself, though CUDA would note them."""
    import cupyx

    host = cupyx.zeros_pinned(array.shape, array.dtype)
    array.set(host) if action == "set" else array.get(out=host, blocking=False)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_is_refused(simulated_gpu: Any, stream: Any, name: str) -> None:
    action, error, message = REFUSED[name]
    array = simulated_gpu.ones((2, 3), np.float32)
    stream.begin_capture()
    try:
        with pytest.raises(error, match=message):
            action(simulated_gpu, stream, array)
    finally:
        if name == "an event of it":
            stream.end_capture()
        else:
            with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
                stream.end_capture()
    assert float(array.sum()) == 6


def test_a_graph_needs_its_memory(simulated_gpu: Any, stream: Any, add: Any) -> None:
    a, b = simulated_gpu.ones(4, np.float32), simulated_gpu.ones(4, np.float32)
    add(a, b)
    stream.begin_capture()
    add(a, b)
    graph = stream.end_capture()
    graph.launch()
    del b
    with pytest.raises(RuntimeError, match="freed after it was captured"):
        graph.launch()
    c = simulated_gpu.ones(4, np.float32)  # in the same place
    with pytest.raises(RuntimeError, match="freed after it was captured"):
        graph.launch()
    assert float(c.sum()) == 4


def test_streams_that_join_a_capture(simulated_gpu: Any, stream: Any, add: Any) -> None:
    a, b = simulated_gpu.ones(4, np.float32), simulated_gpu.ones(4, np.float32)
    other = simulated_gpu.cuda.Stream(non_blocking=True)
    add(a, b)

    def capture(joins: bool) -> Any:
        stream.begin_capture()
        other.wait_event(stream.record())
        with other:
            add(a, b)
        if joins:
            stream.wait_event(other.record())
        add(b, a)
        return stream.end_capture()

    graph = capture(joins=True)
    assert len(graph) == 2 and float(a[0]) == 2
    graph.launch()
    assert (float(a[0]), float(b[0])) == (3, 4)
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnjoined"):
        capture(joins=False)
    earlier = other.record()
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureIsolation"):
        stream.wait_event(earlier)
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_current_streams(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_GPUS", "2")
    cuda = simulated_gpu.cuda
    first = cuda.Stream()
    assert cuda.get_current_stream() == cuda.Stream.null and cuda.Stream.null.ptr == 0
    with first:
        assert cuda.get_current_stream() is first
        with cuda.Device(1):
            assert cuda.get_current_stream() != first
            with pytest.raises(RuntimeError, match="does not match with the current device"):
                first.use()
            memory = cuda.Memory(8)
            with pytest.raises(RuntimeError, match="a stream of GPU 0, while GPU 1 is current"):
                cuda.runtime.memsetAsync(memory.ptr, 0, 8, first.ptr)
    assert cuda.get_current_stream() == cuda.Stream.null
    with pytest.raises(RuntimeError, match="default"):
        cuda.Stream.null.begin_capture()
    first.begin_capture()  # one that the null stream waits for
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureImplicit"):
        simulated_gpu.zeros(3)
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        first.end_capture()
    first.use()  # of which CuPy knows nothing when a stream is left
    with cuda.Stream() as second:
        assert cuda.get_current_stream() is second
    assert cuda.get_current_stream() == cuda.Stream.null
    first.use()
    array = simulated_gpu.ones((2, 3), np.float32)
    array.get()
    assert cuda.get_current_stream() is first
    array.T.get()  # CuPy enters the stream to bring the values in order
    assert cuda.get_current_stream() == cuda.Stream.null
    start, end = cuda.Event(), cuda.Event()
    start.record()
    end.record()
    assert end.done and cuda.get_elapsed_time(start, end) >= 0
    with pytest.raises(ValueError, match="Timing must be disabled"):
        cuda.Event(interprocess=True)
