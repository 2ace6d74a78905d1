"""The door to CuPy: the only module that imports it, and why it cannot be used where it cannot."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import numpy.typing as npt

from paratrain.errors import MissingDependencyError

__all__ = ["empty_pinned", "library", "problem"]


@functools.cache
def library() -> Any:
    """Return the module ``cupy``. It can be imported where there is no GPU. Raises MissingDependencyError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of parts of CUDA that are missing: whoever needs one will say so
        try:
            return importlib.import_module("cupy")
        except ImportError:
            raise MissingDependencyError("cupy", "training on GPUs", "cuda13") from None


@functools.cache
def problem() -> str | None:
    """Why no GPU can be computed on; None where there is one."""
    try:
        cupy = library()
    except MissingDependencyError as error:
        return str(error)
    if cupy.cuda.is_available():
        return None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        return f"CUDA finds no GPU ({error}); nvidia-smi tells whether the driver works"
    return f"CUDA sees {count} GPUs but cannot use them; nvidia-smi tells whether the driver works"


def empty_pinned(count: int, dtype: npt.DTypeLike) -> Any:
    """Return a new flat NumPy array in pinned memory, which a GPU reads and writes while the host goes on."""
    library()
    return importlib.import_module("cupyx").empty_pinned((count,), dtype)
