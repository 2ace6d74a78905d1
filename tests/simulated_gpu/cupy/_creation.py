"""Functions that make arrays, move them between host and GPU, and pick from them: those whose rules are CuPy's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated import counts, forbid_in_capture, record

from cupy import _operators
from cupy._array import ndarray

__all__ = [
    "array",
    "asanyarray",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "copyto",
    "einsum",
    "empty",
    "empty_like",
    "full",
    "full_like",
    "get_array_module",
    "ones",
    "ones_like",
    "put_along_axis",
    "take",
    "take_along_axis",
    "where",
    "zeros",
    "zeros_like",
]


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray) else np.array(fill_value).dtype
    made = empty(shape, dtype, order)
    made.fill(fill_value) if not isinstance(fill_value, ndarray) else made.__setitem__(..., fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    made = empty(shape, dtype, order)
    made.fill(0)
    return made


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    sizes, kind = prototype.shape if shape is None else shape, prototype.dtype if dtype is None else dtype
    is_fortran = order == "F" or (order in "KA" and prototype.flags.f_contiguous and not prototype.flags.c_contiguous)
    return empty(sizes, kind, "F" if is_fortran else "C")


def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None
) -> ndarray:
    made = empty_like(a, dtype, order, subok, shape)
    made[...] = fill_value
    return made


def zeros_like(a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    return full_like(a, 1, dtype, order, subok, shape)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str | None = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """Of values of the host, which are copied to the GPU, or of another array."""
    if isinstance(obj, ndarray):
        if not copy and dtype in (None, obj.dtype) and order in ("K", "A", None) and obj.ndim >= ndmin:
            return obj
        made = obj.astype(obj.dtype if dtype is None else dtype, order="K" if order is None else order)
        return made.reshape((1,) * (ndmin - made.ndim) + made.shape) if made.ndim < ndmin else made
    if isinstance(obj, list | tuple) and _operators.arrays_in(obj):
        return _operators.compute("array", lambda parts: np.array(parts, dtype=dtype), list(obj))  # type: ignore[no-any-return]
    forbid_in_capture("a copy of the host's values to the GPU")
    host = np.array(obj, dtype=dtype, order=order or "K", ndmin=ndmin)  # type: ignore[call-overload]
    if host.dtype.kind not in "biufcV" or host.dtype.hasobject:
        raise ValueError(f"Unsupported dtype {host.dtype}")
    counts["upload"] += 1
    return _operators.wrap(host, ())  # type: ignore[no-any-return]


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False
) -> ndarray:
    return array(a, dtype, bool(copy), order or "K", blocking=blocking)


asanyarray = asarray


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and a.flags.c_contiguous and dtype in (None, a.dtype) and a.ndim:
        return a
    return array(a, dtype, order="C", ndmin=1)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    host = np.asarray(a, order=order)  # type: ignore[call-overload]
    if out is not None:
        out[...] = host
        return out
    return host


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if any(isinstance(value, ndarray) for value in args) else np


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    if isinstance(src, np.ndarray) and src.ndim:
        raise TypeError(f"Unsupported type {type(src)}")
    source = np.asarray(src) if isinstance(src, np.generic | np.ndarray) else _operators.unwrap(src)
    kind = source.dtype if isinstance(source, np.ndarray) else None
    if kind is not None and not np.can_cast(kind, dst.dtype, casting):
        raise TypeError(f"Cannot cast {kind} to {dst.dtype} in {casting} casting mode")
    target, mask = _operators.unwrap(dst), True if where is None else _operators.unwrap(where)
    sources = _operators.arrays_in([src, where])
    _operators.write("copyto", dst, lambda: np.copyto(target, source, casting=casting, where=mask), sources)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        if x is not y:
            raise ValueError("Must provide both 'x' and 'y' or neither.")
        counts["synchronize"] += 1
        return _operators.compute("nonzero", np.nonzero, condition)
    return _operators.compute("where", np.where, condition, x, y)


def take(a: ndarray, indices: Any, axis: int | None = None, out: ndarray | None = None) -> ndarray:
    """Indices beyond the end wrap around, as on a GPU, where nobody looks."""
    if isinstance(indices, np.ndarray | list | tuple):
        indices = array(np.asarray(indices))
    if out is None:
        return _operators.compute("take", lambda host, at: host.take(at, axis, mode="wrap"), a, indices)  # type: ignore[no-any-return]
    host, at, target = _operators.unwrap(a), _operators.unwrap(indices), _operators.unwrap(out)
    expected = np.broadcast_to(host[..., :0].sum(), host.shape).take(at, axis, mode="wrap").shape
    if out.dtype != a.dtype:
        raise TypeError("Output dtype mismatch")
    if out.shape != expected:
        raise ValueError("Output shape mismatch")
    sources = _operators.arrays_in([a, indices])
    return _operators.write("take", out, lambda: np.copyto(target, host.take(at, axis, mode="wrap")), sources)


def take_along_axis(a: ndarray, indices: ndarray, axis: int | None) -> ndarray:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    return _operators.compute("take_along_axis", np.take_along_axis, a, indices, axis)  # type: ignore[no-any-return]


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: int | None) -> None:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    forbid_in_capture("cupy.put_along_axis, which makes indices")
    target, at, source = _operators.unwrap(arr), _operators.unwrap(indices), _operators.unwrap(values)
    record(lambda: np.put_along_axis(target, at, source, axis))


def einsum(*operands: Any, **kwargs: Any) -> Any:
    """No ``out``, which CuPy does not understand."""
    unknown = kwargs.keys() - {"dtype", "optimize"}
    if unknown:
        raise TypeError(f"Did not understand the following kwargs: {sorted(unknown)}")
    forbid_in_capture("cupy.einsum, by cuBLAS,", error=NotImplementedError)
    arrays = [operand for operand in operands if isinstance(operand, ndarray)]
    kind = (
        np.result_type(*(operand.dtype for operand in arrays))
        if kwargs.get("dtype") is None
        else np.dtype(kwargs["dtype"])
    )

    def multiply(*hosts: Any) -> Any:
        wide = np.float32 if kind.itemsize == 2 and kind.kind not in "iu" else kind
        return np.asarray(np.einsum(*hosts, dtype=wide, casting="unsafe")).astype(kind)

    return _operators.compute("einsum", multiply, *operands)
