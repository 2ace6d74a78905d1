"""cupy.ufunc, and the products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated import forbid_in_capture, is_capturing, late

from cupy import _operators
from cupy._array import ndarray

__all__ = ["ufunc"]

_KEYWORDS = {"out", "dtype", "casting"}
_SCATTERS = ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")
_SCATTERED = ("int32", "float16", "float32", "float64", "uint32", "uint64")


class ufunc:  # noqa: N801
    """A function of elements; numpy's, with the keywords that CuPy takes."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.name = name
        self._host = getattr(np, name)
        self.nin, self.nout, self.nargs = self._host.nin, self._host.nout, self._host.nargs

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        unknown = options.keys() - _KEYWORDS
        if unknown:
            raise TypeError(f"Wrong arguments {dict.fromkeys(unknown)}")
        if len(arguments) > self.nin:
            if "out" in options:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            options["out"] = arguments[self.nin] if self.nout == 1 else arguments[self.nin :]
            arguments = arguments[: self.nin]
        for value in arguments:
            if not isinstance(value, (ndarray, *_operators.Scalar)):
                raise TypeError(f"Unsupported type {type(value)}")
        out = options.pop("out", None)
        if isinstance(out, tuple) and len(out) == 1:
            out = out[0]
        if out is None or isinstance(out, tuple):
            if not _operators.arrays_in(arguments):
                arguments = tuple(_operators.wrap(np.asarray(value), ()) for value in arguments)
            if out is not None and any(value is not None for value in out):
                raise NotImplementedError("the simulation has no ufunc with several given outputs")
            return _operators.compute(self.name, self._host, *arguments, **options)
        if not isinstance(out, ndarray):
            raise TypeError("return arrays must be of ArrayType")
        hosts, target = _operators.unwrap(list(arguments)), _operators.unwrap(out)
        _operators.copy_overlapping(arguments, out)
        with np.errstate(all="ignore"):
            kind = (
                self._host.resolve_dtypes((*(_dtype(value) for value in hosts), target.dtype))
                if is_capturing() or late.is_on()
                else None
            )
        del kind  # raises here, and not at the launch, what numpy refuses
        return _operators.write(
            self.name, out, lambda: self._host(*hosts, out=target, **options), _operators.arrays_in(arguments)
        )

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.name not in _SCATTERS:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if a.dtype.name not in _SCATTERED:
            raise TypeError(f"{self.name}.at does not support {a.dtype.name}")
        key, _ = _operators._key(indices)
        host, value = _operators.unwrap(a), _operators.unwrap(b)
        _operators.write(
            f"{self.name}.at", a, lambda: self._host.at(host, key, value), _operators.arrays_in([indices, b])
        )

    def outer(self, a: Any, b: Any, **options: Any) -> Any:
        return _operators.compute(f"{self.name}.outer", self._host.outer, a, b, **options)

    def reduce(self, a: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        import cupy

        name = {"add": "sum", "multiply": "prod"}.get(self.name)
        if name is None:
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return getattr(cupy, name)(a, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def accumulate(self, a: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        import cupy

        name = {"add": "cumsum", "multiply": "cumprod"}.get(self.name)
        if name is None:
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        return getattr(cupy, name)(a, axis=axis, dtype=dtype, out=out)


def _dtype(value: Any) -> Any:
    return (
        type(value)
        if type(value) in (int, float, complex)
        else np.dtype(bool)
        if isinstance(value, bool)
        else value.dtype
    )


def product(name: str, *arguments: Any, **options: Any) -> Any:
    """matmul, dot and their like: by cuBLAS, which CuPy refuses in a capture. Sums of 16-bit numbers are made in float."""
    forbid_in_capture(f"cupy.{name}, by cuBLAS,", error=NotImplementedError)
    out = options.pop("out", None)
    function = getattr(np, name)

    def multiply(*hosts: Any) -> Any:
        arrays = [host for host in hosts if isinstance(host, np.ndarray)]
        kind = np.result_type(*arrays)
        if kind.itemsize != 2 or kind.kind in "iu":
            return function(*hosts, **options)
        wide = [host.astype(np.float32) if isinstance(host, np.ndarray) else host for host in hosts]
        return function(*wide, **options).astype(kind)

    result = _operators.compute(name, multiply, *arguments)
    if out is None:
        return result
    if out.shape != result.shape:
        raise ValueError("Output array has errors")
    if name == "dot" and out.dtype != result.dtype:
        raise ValueError(f"dtype mismatch: {out.dtype} for {result.dtype}")
    if not np.can_cast(result.dtype, out.dtype, "same_kind"):
        raise TypeError(f"Cannot cast from {result.dtype} to {out.dtype}")
    out[...] = result
    return out
