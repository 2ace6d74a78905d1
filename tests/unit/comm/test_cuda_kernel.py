"""The kernel that adds gradients: its source compiled for the host, where blocks and threads are two loops."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from paratrain.comm.cuda import ADD_SOURCE, add_name

SHIM = """
struct Dimension { long long x; };
static Dimension blockIdx, threadIdx, blockDim, gridDim;
#define __global__
SOURCE
template <int N> void run(const float** a, float scale, float* out, long long count, int blocks, int threads) {
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) {
            add<float, N>(ARRAYS, scale, out, count);
        }
    }
}
extern "C" void call(int n, const float** a, float scale, float* out, long long count, int blocks, int threads) {
    if (n == 1) run<1>(a, scale, out, count, blocks, threads);
    if (n == 2) run<2>(a, scale, out, count, blocks, threads);
    if (n == 3) run<3>(a, scale, out, count, blocks, threads);
    if (n == 16) run<16>(a, scale, out, count, blocks, threads);
}
""".replace("SOURCE", ADD_SOURCE).replace("ARRAYS", ", ".join(f"a[{n}]" for n in range(16)))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel as a function of the host."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    folder: Path = tmp_path_factory.mktemp("kernel")
    (folder / "add.cpp").write_text(SHIM)
    # A GPU does not contract an addition and the multiplication after it either: only the reverse order can be.
    options = ["-O1", "-ffp-contract=off", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", folder / "add.so", folder / "add.cpp"], check=True)
    return ctypes.CDLL(str(folder / "add.so"))


@pytest.mark.parametrize("array_count", [1, 2, 3, 16])
def test_the_sum_has_the_bits_of_one_in_order(kernel: ctypes.CDLL, array_count: int) -> None:
    random = np.random.default_rng(array_count)
    for count in (1, 63, 64, 255, 256, 257, 5003):
        for blocks in (1, 3):
            values = random.standard_normal((16, count)) * 10.0 ** random.integers(-4, 5, (16, count))
            arrays = values.astype(np.float32)
            expected = arrays[0].copy()
            for array in arrays[1:array_count]:
                expected += array
            expected *= np.float32(0.37)
            addresses = (ctypes.c_void_p * 16)(*[array.ctypes.data for array in arrays])
            out = arrays[array_count // 2]  # where the sum may lie: in one of the arrays
            kernel.call(
                array_count,
                addresses,
                ctypes.c_float(0.37),
                ctypes.c_void_p(out.ctypes.data),
                ctypes.c_longlong(count),
                blocks,
                64,
            )
            assert out.tobytes() == expected.tobytes(), (count, blocks)


def test_names_of_instances() -> None:
    assert (add_name("f4", 2), add_name(np.float64, 16)) == ("add<float, 2>", "add<double, 16>")
