"""numpy's functions on arrays of a GPU, as far as CuPy has them, with the parameters that CuPy gives them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from cupy import _operators
from cupy._array import ndarray
from cupy._names import FUNCTIONS, UFUNCS
from cupy._ufuncs import product, ufunc

__all__ = ["find"]

_PRODUCTS = {"dot", "inner", "outer", "tensordot", "vdot", "matmul"}
_WIDE = {"sum", "mean", "prod", "cumsum", "cumprod", "var", "std"}
"""What adds 16-bit numbers in float."""
_PLAIN = {
    "broadcast_shapes",
    "can_cast",
    "isdtype",
    "isscalar",
    "issubdtype",
    "iterable",
    "ndim",
    "promote_types",
    "shape",
    "size",
}
"""What asks about shapes and types alone."""
_VIEWS = {
    *(
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "broadcast_to",
        "broadcast_arrays",
        "diagonal",
        "expand_dims",
        "flip",
        "fliplr",
    ),
    *(
        "flipud",
        "matrix_transpose",
        "moveaxis",
        "permute_dims",
        "rollaxis",
        "split",
        "array_split",
        "hsplit",
        "vsplit",
        "dsplit",
    ),
    *("squeeze", "swapaxes", "transpose", "rot90"),
}
"""What gives views of its arrays, and does nothing on the GPU."""


def find(name: str) -> Callable[..., Any]:
    """The function of this name; AttributeError where CuPy has none."""
    if name in UFUNCS:
        return ufunc(name)
    if name in _PRODUCTS:
        return functools.wraps(getattr(np, name))(functools.partial(product, name))
    if name == "result_type":
        return _result_type
    if name in _PLAIN:
        return _plain(name)
    if name in FUNCTIONS:
        return _function(name, FUNCTIONS[name])
    raise AttributeError(f"module 'cupy' has no attribute {name!r}")


def _result_type(*values: Any) -> Any:
    return np.result_type(*map(_operators.unwrap, values))


def _plain(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def call(*arguments: Any, **options: Any) -> Any:
        return function(*map(_operators.unwrap, arguments), **options)

    return functools.wraps(function)(call)


def _function(name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    function = getattr(np, name)
    is_open = any(parameter.startswith("*") for parameter in parameters)
    names = [parameter.lstrip("*") for parameter in parameters]

    def call(*arguments: Any, **options: Any) -> Any:
        if not is_open:
            unknown = options.keys() - set(names)
            if unknown or len(arguments) > len(names):
                found = f"unexpected keyword arguments {sorted(unknown)}" if unknown else f"{len(arguments)} arguments"
                raise TypeError(f"cupy.{name}() takes ({', '.join(names)}); found {found}")
        out = options.get("out", arguments[names.index("out")] if "out" in names[: len(arguments)] else None)
        if out is not None and not isinstance(out, ndarray):
            raise TypeError(f"Argument 'out' has incorrect type (expected cupy.ndarray, got {type(out).__name__})")
        if name in ("argmax", "argmin", "nanargmax", "nanargmin"):
            options.update(zip(names, arguments, strict=False))
            arguments = ()
            wanted = options.pop("dtype", None)
            if wanted is not None:
                return call(**options).astype(wanted)
        if name in _VIEWS:
            return _view(function, *arguments, **options)
        result = _operators.compute(name, _widened(name, function), *arguments, **options)
        return result if out is None else out

    return functools.wraps(function)(call)


def _view(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    sources = _operators.arrays_in(arguments)
    return _operators.wrap(function(*_operators.unwrap(list(arguments)), **options), sources)


def _widened(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name not in _WIDE:
        return function

    def call(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, np.ndarray) and host.dtype.itemsize == 2 and host.dtype.kind not in "iu":
            result = function(host.astype(np.float32), *arguments, **options)
            kind = options.get("dtype") or (
                arguments[1] if len(arguments) > 1 and arguments[1] is not None else host.dtype
            )
            return result if options.get("out") is not None else result.astype(kind)
        return function(host, *arguments, **options)

    return call
