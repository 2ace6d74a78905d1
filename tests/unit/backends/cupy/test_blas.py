"""Matrix products through ctypes, against numpy in doubles; a stand-in for cuBLAS has its column-major meaning."""

from __future__ import annotations

import ctypes
import gc
import types
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from paratrain.backends.cupy import cublas
from paratrain.backends.cupy.blas import Blas
from paratrain.backends.cupy.graph import capture
from paratrain.errors import BackendError, DeviceError, MissingDependencyError
from tests.simulated_gpu_path import IS_REAL

HALF, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
TYPES = [
    *((np.dtype(kind), np.dtype(kind)) for kind in (np.float32, np.float64, HALF, BFLOAT16)),
    *((kind, np.dtype(np.float32)) for kind in (HALF, BFLOAT16)),
]
ROUNDING = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-3, "bfloat16": 8e-3}


@pytest.fixture
def blas(simulated_gpu: Any) -> Blas:
    return Blas(simulated_gpu.cuda.get_current_stream())


def numbers(shape: tuple[int, ...], kind: np.dtype[Any], seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def lay(cupy: Any, values: Any, how: str) -> Any:
    """The values on the GPU by rows, by columns, or as a part of a wider matrix."""
    if how == "columns":
        return cupy.asarray(np.ascontiguousarray(values.swapaxes(-1, -2))).swapaxes(-1, -2)
    if how == "part":
        wide = np.full((*values.shape[:-1], values.shape[-1] + 3), np.nan, values.dtype)
        wide[..., 1:-2] = values
        return cupy.asarray(wide)[..., 1:-2]
    return cupy.asarray(values)


@pytest.mark.parametrize(("kind", "out_kind"), TYPES, ids=str)
@pytest.mark.parametrize(("m", "k", "n"), [(7, 5, 3), (1, 9, 4), (6, 1, 5), (4, 8, 1), (33, 70, 20)])
def test_products_agree(simulated_gpu: Any, blas: Blas, kind: Any, out_kind: Any, m: int, k: int, n: int) -> None:
    a, b, c = numbers((m, k), kind, 1), numbers((k, n), kind, 2), numbers((m, n), out_kind, 3)
    for a_lies in ("rows", "columns", "part"):
        for b_lies in ("rows", "columns", "part"):
            for alpha, beta in ((1.0, 0.0), (1.0, 1.0), (-0.5, 2.0)):
                out = (
                    simulated_gpu.asarray(c) if beta else simulated_gpu.empty((m, n), out_kind)
                )  # which is NaN: not read
                blas.product(lay(simulated_gpu, a, a_lies), lay(simulated_gpu, b, b_lies), out, alpha=alpha, beta=beta)
                expected = alpha * (a.astype(float) @ b.astype(float)) + beta * c.astype(float)
                tolerance = ROUNDING[out_kind.name] * (np.abs(a.astype(float)) @ np.abs(b.astype(float)) + 5)
                assert (np.abs(out.get().astype(float) - expected) <= tolerance).all(), (a_lies, b_lies, beta)


@pytest.mark.parametrize("kind", [np.dtype(np.float32), BFLOAT16], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_batches_agree(simulated_gpu: Any, blas: Blas, kind: Any, batch: int) -> None:
    a, b, c = (
        numbers((batch, 3, 6), kind, 1),
        numbers((batch, 6, 5), kind, 2),
        numbers((batch, 3, 5), np.dtype(np.float32), 3),
    )
    for a_lies in ("rows", "columns", "part", "shared"):
        factor = a[:1] if a_lies == "shared" else a
        first = lay(simulated_gpu, factor, a_lies)
        if a_lies == "shared":
            first = simulated_gpu.broadcast_to(first, a.shape)
        for b_lies in ("rows", "columns"):
            out = simulated_gpu.asarray(c)
            blas.batched_product(first, lay(simulated_gpu, b, b_lies), out, beta=1.0)
            np.testing.assert_allclose(out.get(), factor.astype(float) @ b.astype(float) + c, rtol=1e-5, atol=1e-5)


def test_empty_products(simulated_gpu: Any, blas: Blas) -> None:
    out = simulated_gpu.ones((2, 3), np.float32)
    nothing = simulated_gpu.empty((2, 0), np.float32), simulated_gpu.empty((0, 3), np.float32)
    blas.product(*nothing, out, beta=1.0)
    assert (out.get() == 1).all()
    blas.product(*nothing, out, beta=0.5)
    assert (out.get() == 0.5).all()
    blas.product(*nothing, out)
    assert (out.get() == 0).all()
    blas.product(simulated_gpu.empty((0, 2), np.float32), simulated_gpu.empty((2, 3), np.float32), nothing[1])


def test_float32_has_all_its_bits_unless_tf32_is_allowed(simulated_gpu: Any) -> None:
    fine = simulated_gpu.asarray(np.array([[1 + 2.0**-12]], np.float32))
    for allowed, expected in ((False, 1 + 2.0**-12), (True, 1.0)):
        out = simulated_gpu.empty((1, 1), np.float32)
        product = Blas(simulated_gpu.cuda.get_current_stream(), allow_tf32=allowed)
        product.product(fine, simulated_gpu.ones((1, 1), np.float32), out)
        # The real cuBLAS need not use tensor cores for so little.
        assert out.get()[0, 0] == np.float32(expected) or (IS_REAL and allowed)
    doubles = fine.astype(np.float64)
    product.product(doubles, doubles, out := simulated_gpu.empty((1, 1), np.float64))
    assert out.get()[0, 0] == (1 + 2.0**-12) ** 2


def test_later_products_allocate_nothing_and_can_be_recorded(simulated_gpu: Any) -> None:
    import simulated

    stream = simulated_gpu.cuda.Stream()
    with stream:
        blas = Blas(stream)
        a, b = (simulated_gpu.asarray(numbers((4, 4), np.dtype(np.float32), seed)) for seed in (1, 2))
        out = simulated_gpu.zeros((4, 4), np.float32)
        blas.product(a, b, out)
        once, before = out.get(), dict(simulated.counts)
        graph = capture(stream, lambda: blas.product(a, b, out, beta=1.0))
        assert graph is not None
        assert (out.get() == once).all(), "recorded is not done"
        graph.replay()
        graph.replay()
        np.testing.assert_allclose(out.get(), 3 * once, rtol=1e-6)
        assert [simulated.counts[what] - before.get(what, 0) for what in ("malloc", "allocate")] == [0, 0]
        if not IS_REAL:  # which may allow it
            with pytest.raises(DeviceError, match="NOT_INITIALIZED"):
                first_in_capture(simulated_gpu)


def first_in_capture(cupy: Any) -> None:
    """The library opens itself at the first product, which cannot be recorded."""
    stream = cupy.cuda.Stream()
    with stream:
        ones = cupy.ones((1, 1), np.float32)
        stream.begin_capture()
        try:
            Blas(stream).product(ones, ones, ones)
        finally:
            with pytest.raises(RuntimeError):
                stream.end_capture()


def test_works_on_the_stream_that_it_was_given(simulated_gpu: Any) -> None:
    other = simulated_gpu.cuda.Stream()
    blas, one = Blas(other), simulated_gpu.ones((1, 1), np.float32)
    blas.product(one, one, one)
    out = simulated_gpu.zeros((1, 1), np.float32)
    other.begin_capture()
    blas.product(one, one, out)
    graph = other.end_capture()
    assert out.get()[0, 0] == 0
    graph.launch(other)
    assert out.get()[0, 0] == 1


def test_failures_say_what_to_do(simulated_gpu: Any) -> None:
    blas = Blas(simulated_gpu.cuda.get_current_stream())
    one = simulated_gpu.ones((1, 1), np.float32)
    blas.product(one, one, one)
    library = cublas.library()
    with pytest.raises(
        BackendError, match=r"cublasSetWorkspace_v2 failed with 7 \(CUBLAS_STATUS_INVALID_VALUE\).*CUBLAS_LOGINFO_DBG"
    ):
        library.call("cublasSetWorkspace_v2", blas._handle, 128, 1 << 20)  # off its boundary
    handle = blas._handle
    if IS_REAL:
        return  # it does not know handles that are gone, and would crash
    del blas
    gc.collect()
    with pytest.raises(DeviceError, match=r"CUBLAS_STATUS_NOT_INITIALIZED\): .*nvidia-smi"):  # it went with its owner
        library.call("cublasSetMathMode", handle, 0)


def test_absent_and_old_libraries(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"libold\.so has no function cublas\w+; install the cuBLAS of CUDA 12"):
        cublas.Cublas(ctypes.CDLL("libm.so.6"), "libold.so")
    monkeypatch.setattr(cublas, "_candidates", lambda: ["libcublas.so.999"])
    cublas.library.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"libcublas\.so.*pip install 'paratrain\[cuda13\]'"):
        cublas.library()


def test_the_library_of_cupys_own_cuda_version_comes_first(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda import pathfinder

    found = types.SimpleNamespace(abs_path="/there/libcublas.so.13")
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", lambda name: found)
    for major, first in ((13, "/there/libcublas.so.13"), (12, "libcublas.so.12")):
        monkeypatch.setattr(simulated_gpu.cuda.runtime, "runtimeGetVersion", lambda major=major: major * 1000 + 90)
        names = cublas._candidates()
        assert names[0] == first and "/there/libcublas.so.13" in names
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", _find_nothing)
    assert cublas._candidates() == ["libcublas.so.12", "libcublas.so"]


def _find_nothing(name: str) -> None:
    from cuda import pathfinder

    raise pathfinder.DynamicLibNotFoundError(name)
