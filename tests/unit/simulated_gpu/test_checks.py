"""What SIMULATED_GPU_CHECKS and SIMULATED_GPU_ORDER find, and that they accuse nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.simulated_gpu_path import IS_REAL

pytestmark = pytest.mark.skipif(IS_REAL, reason="looks into the simulated GPU")

SOURCE = r"""
#line 1 "checked.cu"
extern "C" __global__ void shift(int good, int* out) {
    __shared__ int places[64];
    places[threadIdx.x] = threadIdx.x;
    if (good) __syncthreads();
    out[threadIdx.x] = places[threadIdx.x ^ 1];
}
extern "C" __global__ void one_for_all(int good, const float* values, float* out) {
    __shared__ float sum;
    for (int round = 0; round < 2; ++round) {
        if (threadIdx.x == 0) sum = values[round];
        __syncthreads();
        out[threadIdx.x + round * blockDim.x] = sum;
        if (good) __syncthreads();
    }
}
extern "C" __global__ void last_block_sums(int good, float* parts, float* total, unsigned* ticket) {
    if (threadIdx.x == 0) parts[blockIdx.x] = blockIdx.x;
    if (good) __threadfence();
    __syncthreads();
    const bool is_last = threadIdx.x == 0 && atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    if (!__syncthreads_or(is_last)) return;
    if (good) __threadfence();
    if (threadIdx.x != 1) return;
    float sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += parts[i];
    *total = sum;
}
extern "C" __global__ void same_and_other(int good, int* out) { out[0] = 7; if (!good) out[1] = blockIdx.x; }
extern "C" __global__ void copy(const float* from, float* to, int first) { to[threadIdx.x] = from[first + threadIdx.x]; }
extern "C" __global__ void by_address(const long long* table) { *reinterpret_cast<float*>(table[0]) = 1; }
extern "C" __global__ void twice(int* out, int value) { out[0] = 2 * value; }
template <typename T> __device__ T unset(T value) {
    __shared__ T values[4];
    values[0] = value;
    return values[1];
}
extern "C" __global__ void reads_unset(float* out) { out[0] = unset(out[1]); }
extern "C" __global__ void beyond_fixed(float* out, int place) {
    __shared__ float values[4];
    __shared__ float more[4];
    values[place] = 1;
    more[0] = 2;
    out[0] = values[place];
}
extern "C" __global__ void note_order(int* order, int* count) {
    order[atomicAdd(count, 1)] = threadIdx.x + blockDim.x * blockIdx.x;
}
"""


@pytest.fixture
def checks(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from simulated import watching

    monkeypatch.setenv("SIMULATED_GPU_CHECKS", "1")
    watching.is_on.cache_clear()
    yield
    monkeypatch.undo()
    watching.is_on.cache_clear()


def test_accusations(simulated_gpu: Any, checks: None) -> None:
    get = simulated_gpu.RawModule(code=SOURCE, options=("-DCHECKED",)).get_function
    ints, values = simulated_gpu.zeros(64, np.int32), simulated_gpu.zeros(128, np.float32)
    out, ticket = simulated_gpu.empty(128, np.float32), simulated_gpu.zeros(1, np.uint32)
    for name, grid, arguments, message in (
        ("shift", 1, (ints,), "never written|a thread (reads|writes) what another"),
        ("one_for_all", 1, (values, out), "a thread (writes what another reads|reads what another writes)"),
        ("last_block_sums", 5, (values, out, ticket), r"a thread reads what another writes: 4 bytes at checked.cu:25"),
        ("same_and_other", 3, (ints,), "two threads write different values to one place"),
    ):
        get(name)((grid,), (64,), (np.int32(1), *arguments))
        with pytest.raises(RuntimeError, match=f"{name}: .*({message})"):
            get(name)((grid,), (64,), (np.int32(0), *arguments))
    assert float(out[0]) == 10
    for name, arguments, message in (
        ("copy", (values[:64], out, np.int32(1)), "reads outside of its arrays"),
        ("copy", (values, out[1:64], np.int32(0)), "writes outside of its arrays"),
        ("copy", (simulated_gpu.empty(64, np.float32), out, np.int32(0)), "reads what was never written"),
        ("by_address", (simulated_gpu.full(1, 4096, np.int64),), "no memory of an array"),
        ("twice", (ints, np.int32(2**30)), "a product of ints beyond 32 bits"),
        ("reads_unset", (values,), "reads what was never written"),
        ("beyond_fixed", (out, np.int32(4)), "beyond a shared array|an index beyond"),
    ):
        with pytest.raises(RuntimeError, match=f"{name}: .*({message})"):
            get(name)((1,), (64,), arguments)
    get("copy")((1,), (64,), (values[1:], out, np.int32(0)))
    get("by_address")((1,), (64,), (simulated_gpu.full(1, values.data.ptr, np.int64),))


def test_shared_arrays(simulated_gpu: Any) -> None:
    if os.environ.get("SIMULATED_GPU_CHECKS") == "1":
        pytest.skip("what they read is refused then")
    module, out = simulated_gpu.RawModule(code=SOURCE), simulated_gpu.zeros(4, np.float32)
    module.get_function("reads_unset")((1,), (1,), (out,))
    assert np.isnan(out.get()[0])
    with pytest.raises(RuntimeError, match="it wrote beyond the 16 bytes of a shared array"):
        module.get_function("beyond_fixed")((1,), (1,), (out, np.int32(4)))
    with pytest.raises(simulated_gpu.cuda.compiler.CompileException, match="one array in each"):
        simulated_gpu.RawModule(code=SOURCE.replace("more[4]", "more[4], most[4]")).get_function("shift")


@pytest.mark.parametrize("name", ["upwards", "downwards", "shuffled", "drawn"])
def test_orders(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from simulated import watching

    kernel = simulated_gpu.RawModule(code=SOURCE).get_function("note_order")
    found = {}
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("SIMULATED_GPU_ORDER", name)
        monkeypatch.setenv("SIMULATED_GPU_SEED", seed)
        watching.set_order(kernel._kernel._library)
        order, count = simulated_gpu.empty(320, np.int32), simulated_gpu.zeros(1, np.int32)
        kernel((5,), (64,), (order, count))
        assert found.setdefault(seed, order.get().tolist()) == order.get().tolist()
        assert sorted(order.get()) == list(range(320))
    monkeypatch.undo()
    watching.set_order(kernel._kernel._library)
    sign = {"upwards": 1, "downwards": -1}.get(name)
    assert found["1"] == list(range(320))[::sign] if sign else found["1"] != found["2"]
