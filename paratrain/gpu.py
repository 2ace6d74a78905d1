"""The door to CuPy: the only module that imports it, and why it cannot be used where it cannot."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from paratrain.errors import MissingDependencyError

__all__ = ["empty_pinned", "library", "problem", "uuid_text"]


@functools.cache
def library() -> Any:
    """Return the module ``cupy``. It can be imported where there is no GPU. Raises MissingDependencyError."""
    if not _can_keep_kernels():  # CuPy would raise OSError, on machines without a GPU as well
        os.environ["CUPY_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="cupy-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of parts of CUDA that are missing: whoever needs one will say so
        try:
            return importlib.import_module("cupy")
        except (ImportError, OSError) as error:
            problem = "" if getattr(error, "name", "") == "cupy" else str(error.__cause__ or error)
            raise MissingDependencyError("cupy", "training on GPUs", "cuda13", problem) from None


def _can_keep_kernels() -> bool:
    """Whether CuPy can write the folder where it keeps compiled kernels, or make it."""
    given = os.environ.get("CUPY_CACHE_DIR", "~/.cupy/kernel_cache")
    if not given:  # CuPy would not take that for the usual folder
        return False
    try:
        folder = Path(given).expanduser()
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    except (OSError, RuntimeError):  # nobody may look there, or there is no home
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@functools.cache
def problem() -> str | None:
    """Why no GPU can be computed on; None where there is one. From then on no process that this one forks can use a GPU."""
    global _is_used
    if _is_forked:
        return (
            "the process that forked this one had used CUDA before, which works in no fork then: start processes before "
            "anything asks for a GPU (as set_mode_gpu and set_device do), or by multiprocessing's 'spawn'"
        )
    try:
        cupy = library()
    except MissingDependencyError as error:
        return str(error)
    if cupy.cuda.is_available():
        _is_used = True
        return None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except RuntimeError as error:
        driver, own = (version // 1000 for version in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
        if 0 < driver < own:  # 0: there is none
            other = "; or uninstall CuPy, and pip install 'paratrain[cuda12]'" if driver == 12 else ""
            return (
                f"CuPy is made for CUDA {own}, and this machine's driver knows CUDA {driver}: update the driver{other}"
            )
        return f"CUDA finds no GPU ({error}); nvidia-smi tells whether the driver works"
    return f"CUDA sees {count} GPUs but cannot use them; nvidia-smi tells whether the driver works"


_is_used, _is_forked = False, False
"""Whether this process has used CUDA, and whether it is a fork of one that had."""


def _note_fork() -> None:
    """In a process that has just been forked."""
    global _is_forked
    if _is_used:
        _is_forked = True
        problem.cache_clear()


os.register_at_fork(after_in_child=_note_fork)


def empty_pinned(count: int, dtype: npt.DTypeLike) -> Any:
    """Return a new flat NumPy array in pinned memory, which a GPU reads and writes while the host goes on."""
    library()
    return importlib.import_module("cupyx").empty_pinned((count,), dtype)


def uuid_text(properties: Mapping[str, Any]) -> str:
    """Return the UUID in what ``getDeviceProperties`` tells of a GPU, as hexadecimal digits; "" where it has none.

    CuPy's bytes end at the first that is 0, as a text does, which may be one behind the UUID's 16, of nobody's choice.
    """
    return bytes(properties.get("uuid", b""))[:16].hex()
