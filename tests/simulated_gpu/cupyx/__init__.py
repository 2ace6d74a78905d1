"""Stands in for the part of CuPy that numpy does not have."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np
from cupy import _operators
from cupy.cuda.pinned_memory import alloc_pinned_memory

__all__ = [
    "empty_like_pinned",
    "empty_pinned",
    "errstate",
    "rsqrt",
    "scatter_add",
    "scatter_max",
    "scatter_min",
    "zeros_like_pinned",
    "zeros_pinned",
]


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    """A numpy array in pinned memory."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (int(shape),)
    size = math.prod(sizes) * np.dtype(dtype).itemsize
    return np.ndarray(sizes, dtype, alloc_pinned_memory(size).as_array().data if size else b"", 0, order=order)  # type: ignore[call-overload]


def zeros_pinned(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    made = empty_pinned(shape, dtype, order)
    made[...] = 0
    return made


def empty_like_pinned(a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> Any:
    return empty_pinned(a.shape if shape is None else shape, a.dtype if dtype is None else dtype)


def zeros_like_pinned(a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> Any:
    return zeros_pinned(a.shape if shape is None else shape, a.dtype if dtype is None else dtype)


def scatter_add(a: Any, slices: Any, value: Any) -> None:
    cupy.add.at(a, slices, value)


def scatter_max(a: Any, slices: Any, value: Any) -> None:
    cupy.maximum.at(a, slices, value)


def scatter_min(a: Any, slices: Any, value: Any) -> None:
    cupy.minimum.at(a, slices, value)


def rsqrt(x: Any, out: Any = None) -> Any:
    """1 / sqrt(x)."""
    if out is None:
        return _operators.compute("rsqrt", lambda host: (1 / np.sqrt(host)).astype(host.dtype), x)
    host, target = _operators.unwrap(x), _operators.unwrap(out)
    return _operators.write("rsqrt", out, lambda: np.copyto(target, 1 / np.sqrt(host), casting="same_kind"), [x])


@contextlib.contextmanager
def errstate(**options: Any) -> Iterator[None]:
    """Of linear algebra alone, which is not here."""
    yield
