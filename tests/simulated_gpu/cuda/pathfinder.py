"""Finds one library, cuBLAS: a stand-in that is built by g++ from the source beside this file, once on a machine."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simulated
from simulated.memory import block_at

__all__ = ["DynamicLibNotFoundError", "LoadedDL", "load_nvidia_dynamic_lib"]

_SOURCE = Path(__file__).with_name("cublas.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fvisibility=hidden")
_ITEM_BYTES = {0: 4, 1: 8, 2: 2, 14: 2}


class DynamicLibNotFoundError(RuntimeError):
    """There is no such library."""


@dataclass(frozen=True)
class LoadedDL:
    """Where a library was found."""

    abs_path: str
    was_already_loaded_from_elsewhere: bool
    _handle_uint: int
    found_via: str


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("leading", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("type", ctypes.c_int32),
        ("is_transposed", ctypes.c_int32),
    )


class _Product(ctypes.Structure):
    _fields_ = (
        ("a", _Matrix),
        ("b", _Matrix),
        ("c", _Matrix),
        ("k", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("alpha", ctypes.c_double),
        ("beta", ctypes.c_double),
        ("compute", ctypes.c_int32),
        ("has_workspace", ctypes.c_int32),
    )


@functools.cache
def load_nvidia_dynamic_lib(libname: str) -> LoadedDL:
    """Build it if need be, and load it."""
    if libname != "cublas":
        raise DynamicLibNotFoundError(f"Failure finding {libname!r}")
    path = _build()
    library = ctypes.CDLL(str(path))
    library.simulated_use(_keep(_submit_type(functools.partial(_submit, library))), _keep(_wait_type(_wait)))
    return LoadedDL(str(path), False, int(library._handle), "simulated")


def _build() -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        raise DynamicLibNotFoundError("the simulated cuBLAS needs g++: apt install g++")
    version = subprocess.run([compiler, "-v"], capture_output=True, check=True).stderr
    key = hashlib.sha256(version + repr(_FLAGS).encode() + _SOURCE.read_bytes()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"simulated-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"libcublas-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            built = Path(temporary) / "libcublas.so"
            subprocess.run([compiler, *_FLAGS, "-o", str(built), str(_SOURCE)], check=True)
            built.replace(library)
    return library


_submit_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Product))
_wait_type = ctypes.CFUNCTYPE(ctypes.c_int)
_kept: list[Any] = []


def _keep(function: Any) -> Any:
    """Functions that C calls must live as long as the library."""
    _kept.append(function)
    return function


def _wait() -> int:
    """What is done to create a handle, and to destroy one."""
    try:
        simulated.forbid_in_capture("waiting for the device")
    except RuntimeError:
        return 1
    return 0


def _submit(library: ctypes.CDLL, stream: int | None, pointer: Any) -> int:
    product = _Product.from_buffer_copy(pointer.contents)
    pointer = stream or 0
    try:
        if not product.has_workspace:
            simulated.forbid_in_capture("cuBLAS allocating a workspace", pointer)
        blocks = []
        for matrix in (product.a, product.b, product.c):
            count = (product.batch - 1) * matrix.stride + (matrix.columns - 1) * matrix.leading + matrix.rows
            if matrix.rows and matrix.columns:
                simulated.memory_at(matrix.data or 0, count * _ITEM_BYTES[matrix.type])
                block = block_at(matrix.data)
                if block is None:
                    return 13  # the host's memory
                blocks.append(block)
        simulated.counts["product"] += 1
        simulated.record(lambda: library.simulated_run(ctypes.byref(product)), pointer, blocks)
    except RuntimeError:
        return 13
    return 0
