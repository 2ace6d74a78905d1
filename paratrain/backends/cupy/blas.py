"""Matrix products by cuBLAS, through ctypes: CuPy's own door to it is shut while a stream is captured into a graph."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from paratrain.backends.cupy.cublas import ComputeType, Cublas, DataType, MathMode, Operation, data_type, library
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.noting import note

__all__ = ["Blas"]

_WORKSPACE_BYTES = 32 << 20  # what NVIDIA advises for Hopper
_DEFAULT_ALGORITHM = -1


class Blas:
    """cuBLAS with a handle and a workspace of its own, on one stream.

    Products of float32 arrays sum in float32, with TF32's factors where ``allow_tf32``; those of float16 and bfloat16 arrays sum
    in float32, those of float64 arrays in float64. Nothing is allocated after the first product, so that later ones may be
    captured. Two runs give the same bits: cuBLAS promises that for its default algorithms, without atomics and with a
    workspace that no other stream uses. ``fast`` lets it use atomics.

    Loads the library at the first product. Raises MissingDependencyError where there is none, DeviceError and BackendError
    where it fails.
    """

    def __init__(self, stream: Any, *, allow_tf32: bool = False, fast: bool = False) -> None:
        self._stream = stream
        self._allow_tf32 = allow_tf32
        self._fast = fast
        self._library: Cublas | None = None
        self._handle = 0
        self._workspace: Any = None

    def product(self, a: Any, b: Any, out: Any, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out = alpha a @ b + beta out, for matrices (m, k), (k, n) and (m, n).

        ``a`` and ``b`` have one dtype, and rows or columns that lie together: matrices, transposed views of matrices, and
        parts of either. ``out`` is C-contiguous, of their dtype or float32. With beta 0 it is not read.
        """
        m, k = a.shape
        n = b.shape[1]
        assert b.shape[0] == k and out.shape == (m, n) and out.flags.c_contiguous
        if self._is_trivial(k, out, beta):
            return
        compute, scales = self._computation(a, b, out, alpha, beta)
        kind, out_kind = data_type(a.dtype), data_type(out.dtype)
        (a_operation, a_leading), (b_operation, b_leading) = _lay(a), _lay(b)
        # A row-major matrix is its transpose to cuBLAS: out' = b' a'.
        self._run(
            "cublasGemmEx",
            *(b_operation, a_operation, n, m, k, scales[0]),
            *(b.data.ptr, kind, b_leading, a.data.ptr, kind, a_leading, scales[1]),
            *(out.data.ptr, out_kind, max(n, 1), compute, _DEFAULT_ALGORITHM),
        )

    def batched_product(self, a: Any, b: Any, out: Any, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """The same for each of a batch of products: ``a`` (batch, m, k), ``b`` (batch, k, n), ``out`` (batch, m, n).

        Matrices of a batch lie at equal distances; a distance of 0, as ``broadcast_to`` makes it, takes the same factor for all.
        Each matrix of ``out`` is C-contiguous, and none overlaps another.
        """
        batch, m, k = a.shape
        n = b.shape[2]
        assert b.shape == (batch, k, n) and out.shape == (batch, m, n)
        if self._is_trivial(k, out, beta):
            return
        compute, scales = self._computation(a, b, out, alpha, beta)
        kind, out_kind = data_type(a.dtype), data_type(out.dtype)
        (a_operation, a_leading), (b_operation, b_leading) = _lay(a), _lay(b)
        assert _lay(out) == (Operation.NORMAL, max(n, 1))
        self._run(
            "cublasGemmStridedBatchedEx",
            *(b_operation, a_operation, n, m, k, scales[0]),
            *(b.data.ptr, kind, b_leading, b.strides[0] // b.itemsize),
            *(a.data.ptr, kind, a_leading, a.strides[0] // a.itemsize, scales[1]),
            *(out.data.ptr, out_kind, max(n, 1), out.strides[0] // out.itemsize, batch, compute, _DEFAULT_ALGORITHM),
        )

    def _is_trivial(self, k: int, out: Any, beta: float) -> bool:
        """Whether nothing is to be multiplied; ``out`` is right then."""
        if not out.size or k:
            return not out.size
        if beta == 0:
            out.fill(0)
        elif beta != 1:
            out *= beta
        return True

    def _computation(self, a: Any, b: Any, out: Any, alpha: float, beta: float) -> tuple[int, tuple[Any, Any]]:
        """The type to compute in, and the addresses of alpha and beta in that type."""
        assert a.dtype == b.dtype and out.dtype in (a.dtype, np.float32)
        if out.dtype == np.float64:
            return ComputeType.FLOAT64, (ctypes.byref(ctypes.c_double(alpha)), ctypes.byref(ctypes.c_double(beta)))
        is_tf32 = self._allow_tf32 and data_type(a.dtype) is DataType.FLOAT32
        scales = ctypes.byref(ctypes.c_float(alpha)), ctypes.byref(ctypes.c_float(beta))
        return ComputeType.TF32 if is_tf32 else ComputeType.FLOAT32, scales

    def _run(self, name: str, *arguments: Any) -> None:
        if self._library is None:
            self._library = self._open()
        note("cuBLAS")
        self._library.call(name, self._handle, *arguments)

    def _open(self) -> Cublas:
        opened = library()
        handle = ctypes.c_void_p()
        opened.call("cublasCreate_v2", ctypes.byref(handle))
        # Not at exit: the driver may be gone by then, and frees all there is.
        weakref.finalize(self, opened.call, "cublasDestroy_v2", handle.value).atexit = False
        self._handle = handle.value or 0
        self._workspace = CudaDevice().empty(_WORKSPACE_BYTES, np.uint8)
        # In this order: a new stream brings the library's own workspace back.
        opened.call("cublasSetStream_v2", self._handle, self._stream.ptr)
        opened.call("cublasSetWorkspace_v2", self._handle, self._workspace.data.ptr, _WORKSPACE_BYTES)
        # Parts of sums are added in float32 too, not in the type of narrow results.
        opened.call("cublasSetMathMode", self._handle, MathMode.DISALLOW_REDUCED_PRECISION_REDUCTION)
        opened.call("cublasSetAtomicsMode", self._handle, int(self._fast))
        return opened


def _lay(matrix: Any) -> tuple[Operation, int]:
    """How the matrix (or each of a batch) lies: by rows (NORMAL) or by columns, and how far apart these are, in values."""
    rows, columns = matrix.shape[-2:]
    row_step, column_step = (stride // matrix.itemsize for stride in matrix.strides[-2:])
    if (columns == 1 or column_step == 1) and (rows == 1 or row_step >= columns):
        return Operation.NORMAL, columns if rows == 1 else row_step
    assert (rows == 1 or row_step == 1) and (columns == 1 or column_step >= rows), (
        "neither rows nor columns lie together"
    )
    return Operation.TRANSPOSED, rows if columns == 1 else column_step
