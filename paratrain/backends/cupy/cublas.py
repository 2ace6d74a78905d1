"""The library cuBLAS through ctypes: found, its functions declared, its failures made errors."""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib
import re
from typing import Any

import numpy as np

from paratrain import gpu
from paratrain.errors import BackendError, DeviceError, MissingDependencyError

__all__ = ["ComputeType", "Cublas", "DataType", "MathMode", "Operation", "data_type", "library"]


class Operation(enum.IntEnum):
    """Whether a factor is taken as it lies or transposed (cublasOperation_t)."""

    NORMAL = 0
    TRANSPOSED = 1


class DataType(enum.IntEnum):
    """Types of values (cudaDataType_t)."""

    FLOAT32 = 0
    FLOAT64 = 1
    FLOAT16 = 2
    BFLOAT16 = 14


class ComputeType(enum.IntEnum):
    """How products are made and summed (cublasComputeType_t)."""

    FLOAT32 = 68
    FLOAT64 = 70
    TF32 = 77


class MathMode(enum.IntFlag):
    """cublasMath_t."""

    DEFAULT = 0
    DISALLOW_REDUCED_PRECISION_REDUCTION = 16


_DATA_TYPES = {
    "float32": DataType.FLOAT32,
    "float64": DataType.FLOAT64,
    "float16": DataType.FLOAT16,
    "bfloat16": DataType.BFLOAT16,
}

_STATUSES = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}

_OF_THE_DEVICE = {
    1: "CUDA could not be started for it: see whether nvidia-smi works and shows the GPU, and whether the GPU's memory is full",
    3: "the GPU's memory is full: a smaller batch_size needs less",
    8: "this cuBLAS has no kernels for this GPU: install one of the CUDA version that the driver serves",
    13: "a kernel could not run, perhaps since an earlier one failed: CUDA_LAUNCH_BLOCKING=1 shows which",
}
"""Failures that lie with the GPU, and what to do about each."""

_int, _long_long, _pointer = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (ctypes.POINTER(_pointer),),
    "cublasDestroy_v2": (_pointer,),
    "cublasSetStream_v2": (_pointer, _pointer),
    "cublasSetWorkspace_v2": (_pointer, _pointer, ctypes.c_size_t),
    "cublasSetMathMode": (_pointer, _int),
    "cublasSetAtomicsMode": (_pointer, _int),
    # handle, operations of A and B, m, n, k, alpha, A (type, leading), B (type, leading), beta, C (type, leading), compute type,
    # algorithm; matrices are column-major, C is (m, n).
    "cublasGemmEx": (
        *(_pointer, _int, _int, _int, _int, _int, _pointer, _pointer, _int, _int, _pointer, _int, _int),
        *(_pointer, _pointer, _int, _int, _int, _int),
    ),
    # The same, with the distance of the next matrix after each leading dimension and the number of them after C.
    "cublasGemmStridedBatchedEx": (
        *(_pointer, _int, _int, _int, _int, _int, _pointer, _pointer, _int, _int, _long_long),
        *(_pointer, _int, _int, _long_long, _pointer, _pointer, _int, _int, _long_long, _int, _int, _int),
    ),
}


def data_type(dtype: Any) -> DataType:
    """Return cuBLAS's name of a type of values."""
    return _DATA_TYPES[np.dtype(dtype).name]


class Cublas:
    """Functions of a loaded library; each raises DeviceError or BackendError where it fails."""

    def __init__(self, loaded: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._functions: dict[str, Any] = {}
        for function_name, arguments in _SIGNATURES.items():
            function = getattr(loaded, function_name, None)
            if function is None:
                raise BackendError(
                    f"{name} has no function {function_name}; install the cuBLAS of CUDA 12 or later: "
                    "pip install 'paratrain[cuda13]'"
                )
            function.argtypes, function.restype = arguments, _int
            self._functions[function_name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Pointers are addresses as ints, or ctypes' pointers."""
        status = self._functions[name](*arguments)
        if status:
            raise _failure(name, status)


def _failure(name: str, status: int) -> BackendError | DeviceError:
    text = f"cuBLAS: {name} failed with {status} ({_STATUSES.get(status, 'a status that this version does not know')})"
    if status in _OF_THE_DEVICE:
        return DeviceError(f"{text}: {_OF_THE_DEVICE[status]}")
    return BackendError(f"{text}: CUBLAS_LOGINFO_DBG=1 CUBLAS_LOGDEST_DBG=stderr shows the call; please report it")


@functools.cache
def library() -> Cublas:
    """Load cuBLAS: from NVIDIA's wheels, conda or a toolkit, as ``cuda.pathfinder`` finds it, else by the loader's path.

    Raises MissingDependencyError where there is none, BackendError for one that is too old.
    """
    for name in _candidates():
        try:
            return Cublas(ctypes.CDLL(name), name)
        except OSError:
            continue
    raise MissingDependencyError("cuBLAS (libcublas.so)", "computing on GPUs", "cuda13")


def _candidates() -> list[str]:
    """Where to look, the best first: a library of the CUDA version that CuPy is of, if there are several."""
    major = int(gpu.library().cuda.runtime.runtimeGetVersion()) // 1000
    names = [f"libcublas.so.{major}", "libcublas.so"]
    try:
        pathfinder: Any = importlib.import_module("cuda.pathfinder")
        found = str(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except (ImportError, OSError, RuntimeError):  # not installed, or it finds none
        return names
    other_major = re.search(r"\.so\.(\d+)", found)
    is_other = other_major is not None and int(other_major[1]) != major
    return [*names[:1], found, *names[1:]] if is_other else [found, *names]
