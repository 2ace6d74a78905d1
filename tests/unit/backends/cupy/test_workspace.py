"""The memory that work on a stream lends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.workspace import Workspace
from paratrain.errors import DeviceError


def test_is_allocated_once_for_the_largest_that_was_announced(simulated_gpu: Any) -> None:
    import simulated

    workspace = Workspace(CudaDevice())
    for byte_count in (100, 4000, 700):
        workspace.reserve(byte_count)
    before = simulated.counts["allocate"]
    first = workspace.take(25, np.float32)
    assert (first.size, first.dtype) == (25, np.float32)
    assert workspace.take(2000, np.float16).data.ptr == first.data.ptr
    assert simulated.counts["allocate"] == before + 1


def test_blocks_that_became_too_small_stay_for_graphs_that_use_them(simulated_gpu: Any) -> None:
    backend, pool, size_bytes = CupyBackend(), simulated_gpu.get_default_memory_pool(), 1 << 16
    workspace = backend.workspace

    def work() -> None:
        workspace.take(size_bytes, np.uint8).fill(2)

    work()
    graphs = [backend.record(work), backend.record(lambda: None)]
    used_bytes = [pool.used_bytes()]
    large = workspace.take(4 * size_bytes, np.uint8)
    used_bytes.append(pool.used_bytes())
    graphs[0].replay()  # type: ignore[union-attr]  # which fails where the memory was freed
    while graphs:  # the last first
        graphs.pop()
        used_bytes.append(pool.used_bytes())
    larger, of_none, of_one = np.diff(used_bytes)
    assert (larger, of_one) == (4 * size_bytes, of_none - size_bytes)
    assert workspace.take(64, np.float32).data.ptr == large.data.ptr


def test_says_what_was_wanted_where_memory_is_short(simulated_gpu: Any) -> None:
    total = simulated_gpu.cuda.runtime.memGetInfo()[1]
    with pytest.raises(DeviceError, match=rf"is full: {2 * total:,} bytes were wanted"):
        Workspace(CudaDevice()).take(2 * total, np.uint8)


def test_what_cannot_be_had_does_not_stand_in_the_way(simulated_gpu: Any) -> None:
    total = simulated_gpu.cuda.runtime.memGetInfo()[1]
    workspace = Workspace(CudaDevice())
    with pytest.raises(DeviceError):
        workspace.take(2 * total, np.uint8)
    assert workspace.take(100, np.uint8).size == 100
    workspace.reserve(2 * total)  # which nobody takes
    assert workspace.take(1000, np.uint8).size == 1000


def test_shrinks() -> None:
    workspace = Workspace(CudaDevice())
    workspace.reserve(1000)
    workspace.take(4000, np.uint8)
    workspace.shrink(1000)
    assert workspace.wanted_bytes == 1000 and workspace.take(10, np.uint8).base.nbytes == 1024
