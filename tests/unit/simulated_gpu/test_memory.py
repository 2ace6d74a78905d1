"""Memory of the simulated GPU: what was never written, freed or overrun does not stay unseen."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

MIB = 1 << 20


def test_new_and_freed_memory_holds_no_numbers(simulated_gpu: Any) -> None:
    array = simulated_gpu.empty(1000, np.float32)
    assert np.isnan(array.get()).all()
    for kind in (np.float16, np.float64):
        assert np.isnan(simulated_gpu.empty(7, kind).get()).all()
    array.fill(1)
    address = array.data.ptr
    del array
    again = simulated_gpu.empty(1000, np.float32)  # the pool's block of that size
    assert again.data.ptr == address and np.isnan(again.get()).all()


def test_the_pool_keeps_blocks(simulated_gpu: Any) -> None:
    import simulated

    pool = simulated_gpu.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    before = pool.used_bytes()
    array = simulated_gpu.empty(100, np.float32)
    assert pool.used_bytes() - before == 512
    made, arrays = simulated.counts["malloc"], [array]
    del array
    for _ in range(3):
        arrays.clear()
        arrays.append(simulated_gpu.empty(128, np.float32))
    assert simulated.counts["malloc"] == made
    free, total = simulated_gpu.cuda.runtime.memGetInfo()
    big = simulated_gpu.empty(MIB, np.uint8)
    assert simulated_gpu.cuda.runtime.memGetInfo() == (free - MIB, total)
    del big
    assert simulated_gpu.cuda.Device().mem_info[0] == free - MIB
    pool.free_all_blocks()
    assert simulated_gpu.cuda.Device().mem_info[0] >= free


def test_a_full_gpu(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = simulated_gpu.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    free, total = simulated_gpu.cuda.runtime.memGetInfo()
    monkeypatch.setenv("SIMULATED_GPU_BYTES", str(total - free + 2 * MIB))
    kept = simulated_gpu.empty(MIB, np.uint8)
    with pytest.raises(
        simulated_gpu.cuda.memory.OutOfMemoryError, match=r"Out of memory allocating 2,097,152 bytes \(allocated"
    ):
        simulated_gpu.empty(2 * MIB, np.uint8)
    with pytest.raises(MemoryError):
        simulated_gpu.cuda.Memory(2 * MIB)
    del kept
    assert simulated_gpu.empty(2 * MIB, np.uint8).size == 2 * MIB  # what the pool held is given back first


def test_writing_beyond_an_array_is_noticed_when_it_goes(simulated_gpu: Any) -> None:
    from simulated.memory import block_at

    for offset, where in ((12, "beyond"), (-4, "before")):
        memory = simulated_gpu.cuda.alloc(12)
        block = block_at(memory.ptr)
        assert block is not None
        block.check()
        block.raw[block.start + offset] = 1
        with pytest.raises(RuntimeError, match=f"wrote {where} the 12 bytes"):
            block.check()
        block.mend()


def test_copies_stay_within_blocks(simulated_gpu: Any) -> None:
    runtime = simulated_gpu.cuda.runtime
    array, host = simulated_gpu.zeros(10, np.float32), np.arange(10, dtype=np.float32)
    runtime.memcpyAsync(array.data.ptr, host.ctypes.data, 40, runtime.memcpyHostToDevice, 0)
    runtime.memsetAsync(array.data.ptr + 4, 0, 8, 0)
    np.testing.assert_array_equal(array.get(), [0, 0, 0, 3, 4, 5, 6, 7, 8, 9])
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
        runtime.memcpyAsync(array.data.ptr + 4, host.ctypes.data, 40, runtime.memcpyDefault, 0)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
        runtime.memcpyAsync(array.data.ptr, host.ctypes.data, 40, runtime.memcpyDeviceToDevice, 0)
    address = array.data.ptr
    del array
    with pytest.raises(runtime.CUDARuntimeError, match="was freed"):
        runtime.memcpyAsync(address, host.ctypes.data, 4, runtime.memcpyDefault, 0)


def test_pinned_memory(simulated_gpu: Any) -> None:
    import cupyx
    from simulated.pinned import is_pinned

    pinned = cupyx.zeros_pinned((3, 4), np.float32)
    assert isinstance(pinned, np.ndarray) and is_pinned(pinned[1:]) and not is_pinned(np.zeros(3))
    host = np.zeros(5)
    runtime = simulated_gpu.cuda.runtime
    runtime.hostRegister(host.ctypes.data, host.nbytes, 0)
    with pytest.raises(runtime.CUDARuntimeError, match="already mapped"):
        runtime.hostRegister(host.ctypes.data, 8, 0)
    runtime.hostUnregister(host.ctypes.data)
    with pytest.raises(runtime.CUDARuntimeError, match="does not correspond"):
        runtime.hostUnregister(host.ctypes.data)
