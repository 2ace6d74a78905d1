"""Stands in for CuPy 14 where there is no GPU: see README.md beside this package. Names that CuPy lacks are not here either."""

from __future__ import annotations

import functools
from typing import Any

import numpy as _numpy

from cupy import cuda
from cupy._array import ndarray
from cupy._creation import (
    array,
    asanyarray,
    asarray,
    ascontiguousarray,
    asnumpy,
    copyto,
    einsum,
    empty,
    empty_like,
    full,
    full_like,
    get_array_module,
    ones,
    ones_like,
    put_along_axis,
    take,
    take_along_axis,
    where,
    zeros,
    zeros_like,
)
from cupy._functions import find as _find
from cupy._raw import RawKernel, RawModule
from cupy._ufuncs import ufunc
from cupy.cuda import is_available

__version__ = "14.2.0"
__all__ = [
    "RawKernel",
    "RawModule",
    "array",
    "asanyarray",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "copyto",
    "cuda",
    "einsum",
    "empty",
    "empty_like",
    "full",
    "full_like",
    "get_array_module",
    "get_default_memory_pool",
    "get_default_pinned_memory_pool",
    "is_available",
    "ndarray",
    "ones",
    "ones_like",
    "put_along_axis",
    "take",
    "take_along_axis",
    "ufunc",
    "where",
    "zeros",
    "zeros_like",
]

bool = bool_ = _numpy.bool_  # noqa: A001
int8, int16, int32, int64, intp = _numpy.int8, _numpy.int16, _numpy.int32, _numpy.int64, _numpy.intp
uint8, uint16, uint32, uint64 = _numpy.uint8, _numpy.uint16, _numpy.uint32, _numpy.uint64
float16, float32, float64 = _numpy.float16, _numpy.float32, _numpy.float64
complex64, complex128 = _numpy.complex64, _numpy.complex128
dtype, generic, floating, integer, number = _numpy.dtype, _numpy.generic, _numpy.floating, _numpy.integer, _numpy.number
finfo, iinfo = _numpy.finfo, _numpy.iinfo
inf, nan, pi, e, newaxis = _numpy.inf, _numpy.nan, _numpy.pi, _numpy.e, None


def get_default_memory_pool() -> Any:
    return cuda.memory.default_pool


def get_default_pinned_memory_pool() -> Any:
    return cuda.pinned_memory.default_pool


@functools.cache
def __getattr__(name: str) -> Any:
    return _find(name)
