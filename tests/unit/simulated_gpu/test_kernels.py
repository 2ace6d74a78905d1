"""Kernels of the simulated GPU: how threads wait for each other, what is rounded, and which mistakes are found."""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np
import pytest

SOURCE = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>

extern "C" __global__ void block_totals(const float* values, float* totals, int count) {
    __shared__ float parts[64];
    float sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) sum += values[i];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) parts[threadIdx.x] += parts[threadIdx.x + width];
        __syncthreads();
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = parts[0];
}

extern "C" __global__ void warp_totals(const float* values, float* totals) {
    extern __shared__ float warps[];
    float value = values[blockIdx.x * blockDim.x + threadIdx.x];
#pragma unroll
    for (int delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffffu, value, delta);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0.0f;
        for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
        if (threadIdx.x == 0) totals[blockIdx.x] = value;
    }
}

extern "C" __global__ void lanes(int* first, int* up, unsigned* odd, int* places) {
    const int lane = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    first[lane] = __shfl_sync(0xffffffffu, lane, 0, 8);
    up[lane] = __shfl_up_sync(0xffffffffu, lane, 3);
    odd[lane] = __ballot_sync(0xffffffffu, lane & 1);
    places[lane] = 100 * threadIdx.x + 10 * threadIdx.y + threadIdx.z + __syncthreads_count(lane < 5) * 1000;
}

template <typename T> __device__ T total(T value) {
    __shared__ T values[32];
    values[threadIdx.x] = value;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < 32; ++i) sum += values[i];
    return sum;
}
template <typename T, int N> __global__ void scaled_total(T* out) {
    const T sum = total<T>(threadIdx.x);
    if (threadIdx.x == 0) *out = N * sum;
}

extern "C" __global__ void leave_early(int* out) {
    if (threadIdx.x >= 5) return;
    atomicAdd(out, 1);
    __syncthreads();
    if (threadIdx.x == 4) out[1] = out[0];
}

extern "C" __global__ void different_barriers(int* out) {
    if (threadIdx.x < 3) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
extern "C" __global__ void half_a_warp(int* out) {
    if (threadIdx.x < 16) out[0] = __shfl_sync(0xffffffffu, threadIdx.x, 0);
    else __syncthreads();
}
extern "C" __global__ void unset_shared(float* out) {
    __shared__ float fixed[4];
    extern __shared__ float dynamic[];
    out[0] = fixed[1];
    out[1] = dynamic[1];
}
extern "C" __global__ void beyond_shared(float* out) {
    extern __shared__ float dynamic[];
    dynamic[4] = out[0];
}
extern "C" __global__ void lower_neighbour(int* out) {
    __shared__ int places[64];
    places[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = threadIdx.x == 0 ? 0 : places[threadIdx.x - 1] + 1;
}
extern "C" __global__ void last_block(int* out) { *out = blockIdx.x; }
struct alignas(16) Pack {
    float values[4];
};
extern "C" __global__ void copy_packs(const float* from, float* to) {
    reinterpret_cast<Pack*>(to)[threadIdx.x] = reinterpret_cast<const Pack*>(from)[threadIdx.x];
    __syncthreads();
}
extern "C" __global__ void beyond(float* out, int place) { out[place] = 1; }
extern "C" __global__ void check(int value) { assert(value == 3); }

extern "C" __global__ void round_all(const float* values, const double* doubles, __half* halves, __nv_bfloat16* bfloats,
                                     __half* from_double, float* back, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        halves[i] = __float2half_rn(values[i]);
        bfloats[i] = __float2bfloat16_rn(values[i]);
        from_double[i] = __double2half(doubles[i]);
        back[2 * i] = __half2float(halves[i]);
        back[2 * i + 1] = __bfloat162float(bfloats[i]);
    }
}
extern "C" __global__ void arguments(const float* pointer, int a, long long b, float c, double d, bool e, unsigned char f,
                                     double* out) {
    out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = e, out[5] = f, out[6] = pointer == nullptr;
}
"""


@pytest.fixture(scope="module")
def module(simulated_gpu: Any) -> Any:
    names = ("scaled_total<float, 2>", "scaled_total<double, 3>")
    return simulated_gpu.RawModule(code=SOURCE, options=("-std=c++17",), name_expressions=names)


def test_reductions(simulated_gpu: Any, module: Any) -> None:
    host = np.random.default_rng(1).integers(0, 100, 1000).astype(np.float32)
    values, totals = simulated_gpu.asarray(host), simulated_gpu.empty(3, np.float32)
    module.get_function("block_totals")((3,), (64,), (values, totals, np.int32(1000)))
    assert float(totals.sum()) == host.sum()
    assert float(totals[0]) == host.reshape(-1, 8)[:].ravel()[[i for i in range(1000) if i % 192 < 64]].sum()
    values = values[:768]
    module.get_function("warp_totals")((3,), (256,), (values, totals), shared_mem=32)
    np.testing.assert_array_equal(totals.get(), host[:768].reshape(3, 256).sum(axis=1))


def test_lanes_and_places(simulated_gpu: Any, module: Any) -> None:
    first, up, places = (simulated_gpu.empty(64, np.int32) for _ in range(3))
    odd = simulated_gpu.empty(64, np.uint32)
    module.get_function("lanes")((1, 1, 1), (4, 8, 2), (first, up, odd, places))
    lane = np.arange(64)
    np.testing.assert_array_equal(first.get(), lane // 8 * 8)
    np.testing.assert_array_equal(up.get(), np.where(lane % 32 >= 3, lane - 3, lane))
    assert (odd.get() == 0xAAAAAAAA).all()
    np.testing.assert_array_equal(places.get(), 5000 + 100 * (lane % 4) + 10 * (lane // 4 % 8) + lane // 32)


def test_templates(simulated_gpu: Any, module: Any) -> None:
    single, double = simulated_gpu.empty(1, np.float32), simulated_gpu.empty(1, np.float64)
    module.get_function("scaled_total<float, 2>")((1,), (32,), (single,))
    module.get_function("scaled_total<double, 3>")((1,), (32,), (double,))
    assert (single.item(), double.item()) == (2 * 496, 3 * 496)
    with pytest.raises(RuntimeError, match="CUDA_ERROR_NOT_FOUND"):
        module.get_function("scaled_total<int, 1>")


def test_threads_that_left_are_not_waited_for(simulated_gpu: Any, module: Any) -> None:
    out = simulated_gpu.zeros(2, np.int32)
    module.get_function("leave_early")((1,), (64,), (out,))
    assert out.get().tolist() == [5, 5]


def test_16_bits_are_rounded_as_numpy_does(simulated_gpu: Any, module: Any) -> None:
    rng = np.random.default_rng(3)
    every_half = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    near = (10.0 ** rng.uniform(-9, 6, 20000)).astype(np.float32)
    with np.errstate(all="ignore"):
        above = np.nextafter(every_half.astype(np.float16), np.float16(np.inf)).astype(np.float32)
        halfway = (every_half + above) / 2
        values = np.concatenate([every_half, halfway, np.nextafter(halfway, np.float32(0)), random, near, -near])
        doubles = values.astype(np.float64) * (1 + rng.choice([0, 2e-12, -2e-12], values.size))
        doubles[-2:] = 1e-300, -1e300
        expected = values.astype(np.float16), values.astype(ml_dtypes.bfloat16), doubles.astype(np.float16)
    count = values.size
    out = [simulated_gpu.empty(count, kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float16)]
    back = simulated_gpu.empty((count, 2), np.float32)
    arguments = simulated_gpu.asarray(values), simulated_gpu.asarray(doubles), *out, back, np.int32(count)
    module.get_function("round_all")((1,), (32,), arguments)
    for found, wanted in zip(out, expected, strict=True):
        both = found.get(), wanted
        assert (np.isnan(both[0].astype(float)) == np.isnan(both[1].astype(float))).all()
        numbers = ~np.isnan(wanted.astype(float))
        np.testing.assert_array_equal(both[0][numbers].view(np.uint16), both[1][numbers].view(np.uint16))
    np.testing.assert_array_equal(back.get()[:, 0], expected[0].astype(np.float32))
    np.testing.assert_array_equal(back.get()[:, 1], expected[1].astype(np.float32))


def test_arguments_arrive(simulated_gpu: Any, module: Any) -> None:
    out = simulated_gpu.empty(7, np.float64)
    values = (np.int32(-2), np.int64(2**40), np.float32(0.5), np.float64(1e300), np.bool_(True), np.uint8(200))
    module.get_function("arguments")((1,), (1,), (None, *values, out))
    assert out.get().tolist() == [-2, 2**40, 0.5, 1e300, 1, 200, 1]
    module.get_function("arguments")(
        (1,), (1,), (out.view(np.float32), np.int32(1), 5, *values[2:], out)
    )  # 5 is 64 bits
    assert out.get().tolist() == [1, 5, 0.5, 1e300, 1, 200, 0]


def test_wrong_arguments_are_refused(simulated_gpu: Any, module: Any) -> None:
    out = simulated_gpu.empty(4, np.float32)
    kernel = module.get_function("beyond")
    for arguments, message in (
        ((out,), "takes 2 arguments; found 1"),
        ((out, 1), r"argument 1 of beyond is .*int64.*; it takes an integer of 4 bytes"),
        ((out, np.float32(1)), "argument 1 of beyond is"),
        ((np.float32(1), np.int32(1)), "it takes a pointer"),
        ((out, out), "argument 1 of beyond"),
        ((out.view(np.int32), np.int32(0)), "is an array of int32; it points to a floating point number of 4 bytes"),
        ((simulated_gpu.empty(4, np.float64), np.int32(0)), "array of float64"),
        ((np.zeros(4, np.float32), np.int32(0)), "Unsupported type"),
        ((out, "1"), "Unsupported type"),
    ):
        with pytest.raises(TypeError, match=message):
            kernel((1,), (1,), arguments)
    for grid, block in (((0,), (1,)), ((1,), (1025,)), ((1, 65536), (1,)), ((1,), (0,)), ((1,), (32, 33))):
        with pytest.raises(RuntimeError, match="cudaErrorInvalidConfiguration"):
            kernel(grid, block, (out, np.int32(0)))
    with pytest.raises(RuntimeError, match="50000 bytes of shared memory"):
        module.get_function("unset_shared")((1,), (1,), (out,), shared_mem=50000)
    with pytest.raises(TypeError, match="options"):
        simulated_gpu.RawModule(code=SOURCE, options=["-std=c++17"])


@pytest.mark.skipif(
    os.environ.get("SIMULATED_GPU_CHECKS") == "1", reason="checks find them sooner, and say it otherwise"
)
def test_mistakes_of_kernels_are_found(simulated_gpu: Any, module: Any) -> None:
    out, numbers = simulated_gpu.zeros(4, np.float32), simulated_gpu.zeros(4, np.int32)
    for name, arguments, message in (
        ("different_barriers", (numbers,), r"wait at different barriers: on line \d+ and on line \d+"),
        ("half_a_warp", (numbers,), r"thread 0 waits for its warp on line \d+, which never comes together"),
        ("beyond", (out, np.int32(4)), "beyond: something wrote beyond the 16 bytes"),
        ("beyond", (out, np.int32(-1)), "beyond: something wrote before the 16 bytes"),
        ("beyond_shared", (out,), "it wrote beyond the 16 bytes of shared memory"),
        ("check", (np.int32(4),), r"assert\(value == 3\) on line \d+"),
    ):
        with pytest.raises(RuntimeError, match=message):
            module.get_function(name)((1,), (32,), arguments, shared_mem=16)
    module.get_function("check")((1,), (32,), (np.int32(3),))
    module.get_function("unset_shared")((1,), (1,), (out,), shared_mem=8)
    assert np.isnan(out.get()[:2]).all()
    address = np.uint64(out.data.ptr)
    del out
    with pytest.raises(RuntimeError, match="no address of a GPU"):
        module.get_function("beyond")((1,), (1,), (address, np.int32(0)))


@pytest.mark.skipif(
    "SIMULATED_GPU_CHECKS" in os.environ or "SIMULATED_GPU_ORDER" in os.environ, reason="of the usual run"
)
def test_no_order_of_threads_and_blocks_can_be_counted_on(simulated_gpu: Any, module: Any) -> None:
    out, right = simulated_gpu.empty(64, np.int32), np.arange(64)
    found, last = [], set()
    for _ in range(8):
        module.get_function("lower_neighbour")((1,), (64,), (out,))
        found.append(np.array_equal(out.get(), right))
        module.get_function("last_block")((5,), (1,), (out,))
        last.add(int(out[0]))
    assert not all(found)
    assert len(last) > 1


def test_addresses_must_be_multiples_of_what_is_read_at_once(simulated_gpu: Any, module: Any) -> None:
    values, out = simulated_gpu.arange(80, dtype=np.float32), simulated_gpu.zeros(80, np.float32)
    copy = module.get_function("copy_packs")
    for array in (values[1:], values[2:]):
        with pytest.raises(RuntimeError, match="copy_packs: misaligned address on line"):
            copy((1,), (16,), (array, out))
    copy((1,), (16,), (values[4:], out))
    np.testing.assert_array_equal(out.get()[:64], np.arange(4, 68))


def test_errors_of_the_source(simulated_gpu: Any) -> None:
    module = simulated_gpu.RawModule(code='#line 1 "bad.cu"\nextern "C" __global__ void f(int* a) {\n    a = b;\n}')
    with pytest.raises(simulated_gpu.cuda.compiler.CompileException, match="bad.cu:2:9: error"):
        module.get_function("f")
