"""Late streams of the simulated GPU: work waits where CUDA lets it wait, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.late_streams import late_streams

SEEDS = range(12)
COUNT = 50


def outcomes(act: Callable[[], Any]) -> set[Any]:
    """What it returns under several seeds."""
    found = set()
    for seed in SEEDS:
        with late_streams(seed):
            found.add(act())
    return found


def two(cupy: Any) -> tuple[Any, Any]:
    return cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)


@pytest.mark.parametrize("waits", [True, False])
def test_streams_are_ordered_by_events_alone(simulated_gpu: Any, waits: bool) -> None:
    cupy = simulated_gpu

    def act() -> float:
        one, other = two(cupy)
        values, copy = cupy.zeros(COUNT, np.float32), cupy.zeros(COUNT, np.float32)
        cupy.cuda.Device().synchronize()
        with one:
            for _ in range(3):
                values += 1
        if waits:
            other.wait_event(one.record())
        with other:
            copy[...] = values
        other.synchronize()
        found = float(copy.get()[0])
        one.synchronize()
        return found

    found = outcomes(act)
    assert found == {3.0} if waits else 3.0 in found and len(found) > 1


@pytest.mark.parametrize("kind", ["blocking", "non_blocking"])
def test_the_null_stream_waits_for_blocking_streams(simulated_gpu: Any, kind: str) -> None:
    cupy = simulated_gpu

    def act() -> tuple[float, float]:
        stream = cupy.cuda.Stream(non_blocking=kind == "non_blocking")
        values, copy, back = (cupy.zeros(COUNT, np.float32) for _ in range(3))
        cupy.cuda.Device().synchronize()
        with stream:
            values += 1
        copy[...] = values  # in the null stream
        with stream:
            back[...] = copy
        cupy.cuda.Device().synchronize()
        return float(copy[0]), float(back[0])

    found = outcomes(act)
    assert found == {(1, 1)} if kind == "blocking" else (1, 1) in found and len(found) > 1


@pytest.mark.parametrize("waits", [True, False])
def test_pinned_memory_is_read_when_the_copy_runs(simulated_gpu: Any, waits: bool) -> None:
    import cupyx

    cupy = simulated_gpu

    def act() -> float:
        stream, _ = two(cupy)
        pinned, values = cupyx.zeros_pinned(COUNT, np.float32), cupy.zeros(COUNT, np.float32)
        cupy.cuda.Device().synchronize()
        pinned[...] = 1
        values.set(pinned, stream=stream)
        event = stream.record()
        if waits:
            event.synchronize()
        pinned[...] = 2
        return float(values.get(stream)[0])

    assert outcomes(act) == ({1.0} if waits else {1.0, 2.0})


@pytest.mark.parametrize("waits", [True, False])
def test_pinned_memory_is_written_when_the_copy_runs(simulated_gpu: Any, waits: bool) -> None:
    import cupyx

    cupy, runtime = simulated_gpu, simulated_gpu.cuda.runtime

    def act() -> tuple[float, float]:
        stream, _ = two(cupy)
        pinned, more = cupyx.zeros_pinned(COUNT, np.float32), cupyx.zeros_pinned(COUNT, np.float32)
        with stream:
            values = cupy.ones(COUNT, np.float32)
            values.get(stream, out=pinned, blocking=False)
            runtime.memcpyAsync(more.ctypes.data, values.data.ptr, more.nbytes, runtime.memcpyDefault, stream.ptr)
        if waits:
            event = stream.record()
            while runtime.eventQuery(event.ptr):
                pass
        found = float(pinned[0]), float(more[0])
        stream.synchronize()
        return found

    found = outcomes(act)
    assert found == {(1, 1)} if waits else (0, 0) in found and len(found) > 1


def test_memory_that_is_not_pinned_is_read_at_once(simulated_gpu: Any) -> None:
    cupy, runtime = simulated_gpu, simulated_gpu.cuda.runtime

    def act() -> tuple[float, ...]:
        host, stream = np.ones(COUNT, np.float32), cupy.cuda.Stream()
        with stream:
            first, second, third = cupy.asarray(host), cupy.zeros(COUNT, np.float32), cupy.zeros(COUNT, np.float32)
            second.set(host)
            runtime.memcpyAsync(third.data.ptr, host.ctypes.data, host.nbytes, runtime.memcpyDefault, stream.ptr)
            host[...] = 2
            runtime.memcpyAsync(host.ctypes.data, third.data.ptr, host.nbytes, runtime.memcpyDefault, stream.ptr)
            return float(host[0]), *(float(array[3]) for array in (first, second, third))

    assert outcomes(act) == {(1, 1, 1, 1)}


def test_events_are_ready_sooner_or_later(simulated_gpu: Any) -> None:
    cupy = simulated_gpu

    def act() -> int:
        values, count = cupy.zeros(COUNT, np.float32), 0
        assert cupy.cuda.Event().done  # one that was never recorded
        stream, _ = two(cupy)
        with stream:
            values += 1
            event = stream.record()
            values += 1
        while not event.done:
            count += 1
        while not stream.done:
            pass
        return min(count, 2)

    assert outcomes(act) == {0, 1, 2}


def test_a_graph_is_one_piece_of_work(simulated_gpu: Any) -> None:
    cupy = simulated_gpu

    def act() -> float:
        stream, _ = two(cupy)
        with stream:
            values = cupy.zeros(COUNT, np.float32)
            values += 1
            stream.begin_capture()
            values *= 2
            values += 1
            graph = stream.end_capture()
            graph.launch(stream)
            values += 10
            graph.launch(stream)
            return float(values[0])

    assert outcomes(act) == {27.0}


@pytest.mark.parametrize("waits", [True, False])
def test_memory_goes_back_to_the_pool_of_its_stream(simulated_gpu: Any, waits: bool) -> None:
    cupy = simulated_gpu

    def act() -> str:
        one, other = two(cupy)
        with one:
            values = cupy.ones(1000, np.float32)
            values += 1
            del values  # what comes later in this stream may have it
            values = cupy.ones(1000, np.float32)
        other.wait_event(one.record())
        with other:
            copy = values + 1
        if waits:
            one.wait_event(other.record())
        try:
            del values
            cupy.cuda.Device().synchronize()
        except RuntimeError as error:
            return str(error)
        return str(copy.get(other)[5])

    found = outcomes(act)
    assert found == {"2.0"} if waits else any("went back to the pool" in text for text in found)


def test_pinned_memory_must_stay(simulated_gpu: Any) -> None:
    import cupyx

    found = set()
    for seed in SEEDS:
        try:
            with late_streams(seed):
                stream, _ = two(simulated_gpu)
                values = simulated_gpu.zeros(COUNT, np.float32)
                simulated_gpu.cuda.Device().synchronize()
                values.set(cupyx.zeros_pinned(COUNT, np.float32), stream)
        except RuntimeError as error:
            found.add("of pinned memory went while a copy was still to use them" in str(error))
    assert found == {True}


def test_errors_come_late(simulated_gpu: Any) -> None:
    source = 'extern "C" __global__ void beyond(float* values) { values[4] = 1; }'
    kernel = simulated_gpu.RawModule(code=source).get_function("beyond")
    for seed in SEEDS:
        with late_streams(seed):
            values = simulated_gpu.zeros(4, np.float32)
            with pytest.raises(RuntimeError, match="wrote beyond the 16 bytes|no memory of an array"):
                kernel((1,), (1,), (values,))
                simulated_gpu.cuda.Device().synchronize()


def test_results_are_those_of_the_stream(simulated_gpu: Any) -> None:
    """Functions whose results are made by numpy: shapes come at once, values when the stream gets there."""
    cupy = simulated_gpu

    def act() -> tuple[Any, ...]:
        with cupy.cuda.Stream(non_blocking=True):
            values = cupy.arange(12, dtype=np.float32).reshape(3, 4)
            values *= 2
            rows = cupy.zeros(2, np.int32)
            rows += cupy.asarray([2, 1], np.int32)
            total, rest = cupy.zeros(4, np.float32), values.T.ravel()
            cupy.sum(values, axis=0, out=total)
            picked, large = values[rows], values[values > 18]
            split = cupy.divmod(values[0], 3)
            return (
                *(picked.sum().item(), large.tolist() == [20, 22], rest.tolist()[:3] == [0, 8, 16], total.tolist()[0]),
                *(cupy.take(values, rows, axis=0).tolist()[0][0], split[0].tolist()[3], (values @ values.T).shape),
            )

    assert outcomes(act) == {act()} == {(76.0 + 44.0, True, True, 24.0, 16.0, 2.0, (3, 3))}
