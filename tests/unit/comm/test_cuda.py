"""What stands between the exchanges and CuPy, with a CuPy that is faked: no GPU takes part."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paratrain import gpu
from paratrain.comm.cuda import CupyDevice
from paratrain.comm.cuda_nccl import NcclGroup
from paratrain.comm.device import open_device
from paratrain.errors import DeviceError, MissingDependencyError
from tests.unit.comm import fake_cupy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for the library."""
    fake_cupy.install(monkeypatch)
    return fake_cupy


@pytest.mark.parametrize("array_count", [1, 2, 16, 17, 40])
def test_any_number_of_arrays_is_added_in_order(cupy: Any, array_count: int) -> None:
    device = CupyDevice(0)
    values = np.random.default_rng(1).standard_normal((array_count, 100)).astype(np.float32)
    arrays = [device.allocate(100, np.float32) for _ in values]
    for array, numbers in zip(arrays, values, strict=True):
        device.upload(numbers, array)
    out = arrays[-1]
    device.add(arrays, 0.3, out)
    expected, found = values[0].copy(), np.empty(100, np.float32)
    for numbers in values[1:]:
        expected += numbers
    device.download(out, found)
    assert found.tobytes() == (expected * np.float32(0.3)).tobytes()


def test_errors_say_what_failed(cupy: Any) -> None:
    with pytest.raises(DeviceError, match="GPU 5 failed: cudaError 101"):
        open_device(5)
    device = CupyDevice(0)
    with pytest.raises(
        DeviceError,
        match=r"allocating 4,001,366,016 bytes on GPU 0 .* failed: cudaError 2",
    ):
        device.allocate(1_000_000_000, np.float32)
    is_done = device.done()
    cupy.event_status[0] = 600  # not ready
    assert not is_done()
    cupy.event_status[0] = 700  # an illegal address: such an event is never done
    with pytest.raises(DeviceError, match="its work failed: cudaError 700"):
        is_done()
    assert "pip install nvidia-nccl-cu13" in device.nccl_problem
    identity = "0000:3b:00.0 0102030405060708090a0b0c0d0e0f10"
    assert (device.identity, device.description) == (identity, "GPU 0 (0000:3b:00.0)")


def test_an_nccl_that_does_not_load(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = CupyDevice(0)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", None)
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    assert device.nccl_problem.startswith("CuPy cannot load NCCL: ")
    assert not device.nccl_shares_gpus


def test_a_thread_that_joins_keeps_its_gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back on GPU 0, as with the device's `with` in a new thread, the process would begin to use memory there."""
    nccl = SimpleNamespace(NCCL_FLOAT32=7, NCCL_FLOAT64=8, NcclCommunicator=lambda *_: cupy.Device.current)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", nccl)
    device = CupyDevice(0)
    device.join_nccl(b"identity", 2, 1)
    assert cupy.Device.current is device._device
    cupy.Device.current = None


def test_memory_that_the_pool_keeps_is_asked_for(cupy: Any) -> None:
    cupy.pooled_bytes[0] = 1 << 30
    assert len(CupyDevice(0).allocate(100, np.float32)) == 100
    assert cupy.pooled_bytes == [0]


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(gpu, "library", gpu.library.__wrapped__)  # not what it has found before
    with pytest.raises(MissingDependencyError, match="cuda13"):
        open_device()


def test_what_nccl_says_of_its_state() -> None:
    """CuPy looks the number up among those that it knows: 7, which is no failure, is not one of them."""
    answers = [KeyError(7), KeyError(8)]

    def check() -> None:
        raise answers.pop(0)

    nccl = SimpleNamespace(NCCL_FLOAT32=7, NCCL_FLOAT64=8)
    group = NcclGroup(lambda _: contextlib.nullcontext(), nccl, SimpleNamespace(check_async_error=check), 77, 2, 0)
    group.check()
    with pytest.raises(RuntimeError, match="NCCL error 8"):
        group.check()


def test_what_nccl_is_asked_for() -> None:
    asked: list[tuple[Any, ...]] = []
    entered: list[str] = []

    @contextlib.contextmanager
    def call(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    def record(name: str) -> Any:
        return lambda *arguments: asked.append((name, *arguments))

    nccl = SimpleNamespace(
        NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_SUM=0, groupStart=record("start"), groupEnd=record("end")
    )
    names = ("reduceScatter", "allGather", "reduce", "broadcast", "check_async_error", "abort", "destroy")
    group = NcclGroup(call, nccl, SimpleNamespace(**{name: record(name) for name in names}), 77, size=4, rank=2)
    array = fake_cupy.empty(80, np.float32)
    start = array.data.ptr
    with group.group():
        group.reduce_scatter(array)
        group.all_gather(array)
        group.reduce(array[3:10], 3)
        group.broadcast(array[3:10], 3)
    with contextlib.suppress(ZeroDivisionError), group.group():
        raise ZeroDivisionError
    group.check()
    group.abort()
    group.close()
    assert asked == [
        ("start",),
        ("reduceScatter", start, start + 2 * 80, 20, 7, 0, 77),  # from, to, elements of a piece, type, sum, stream
        ("allGather", start + 2 * 80, start, 20, 7, 77),
        ("reduce", start + 12, start + 12, 7, 7, 0, 3, 77),
        ("broadcast", start + 12, start + 12, 7, 7, 3, 77),
        ("end",),
        ("start",),
        ("end",),
        ("check_async_error",),
        ("abort",),
        ("destroy",),
    ]
    assert len(entered) == len(asked)
