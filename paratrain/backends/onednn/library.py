"""The door to oneDNN's C interface (3.x): finding the shared library, the types of its functions, and errors from it.

The library comes as a wheel (``onednn-cpu-gomp``), which puts it among a Python environment's libraries; its OpenMP runtime,
libgomp, is the system's. Nothing outside this module touches ctypes' function objects.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

from paratrain.backends.onednn.signatures import CALLS, CONSTRUCTORS, PRIMITIVES, TYPES, Dimensions
from paratrain.errors import BackendError
from paratrain.threads import openmp_settings

__all__ = ["ExecuteArgument", "Handle", "Library", "UnsupportedError", "load", "problem"]

_LIBRARY_VARIABLE = "PARATRAIN_ONEDNN"
"""An environment variable that names another ``libdnnl.so`` to use, or is ``off``."""
_FILE = "libdnnl.so.3"
_WHEELS = ("onednn-cpu-gomp", "onednn-cpu-iomp")
_LEAST_VERSION = (3, 2)
_STATUS = ("success", "out of memory", "invalid arguments", "unimplemented", "last implementation reached",
           "runtime error", "not required")  # fmt: skip
_OUT_OF_MEMORY, _UNIMPLEMENTED = 1, 3
_ISA_NAMES = {0x1: "sse41", 0x3: "avx", 0x7: "avx2", 0xF: "avx2_vnni", 0x1F: "avx2_vnni_2", 0x27: "avx512_core",
              0x67: "avx512_core_vnni", 0xE7: "avx512_core_bf16", 0x1EF: "avx512_core_fp16",
              0xFEF: "avx512_core_amx", 0x1FEF: "avx512_core_amx_fp16"}  # fmt: skip
_AVX2, _AVX512, _AVX512_BF16, _AVX512_FP16, _AMX = 0x7, 0x20, 0xE7, 0x1EF, 0xFEF
_PAUSE_HARD = 2


class ExecuteArgument(ctypes.Structure):
    """``dnnl_exec_arg_t``: an argument's number and the memory object for it."""

    _fields_ = (("argument", c_int), ("memory", c_void_p))


class _Version(ctypes.Structure):
    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", c_char_p),
        ("cpu", c_uint),
        ("gpu", c_uint),
    )


class UnsupportedError(Exception):
    """oneDNN has no kernel for what is asked, or none worth running; whoever asks computes another way."""


class Handle:
    """An object of oneDNN, which lives as long as this."""

    def __init__(self, library: Library, kind: str, value: int) -> None:
        self.value = value
        self._destroy = library.destructor(kind)

    @property
    def _as_parameter_(self) -> c_void_p:
        return c_void_p(self.value)

    def __del__(self) -> None:
        self._destroy(self.value)


class Library:
    """oneDNN, loaded. Functions are called by their names without the leading ``dnnl_``.

    Calls that return at once keep Python's lock; :attr:`execute`, which computes, gives it free.
    """

    def __init__(self, path: Path) -> None:
        with _openmp_settings():
            # A name asked of a library is looked for in those that it was built with, too: OpenMP's are found.
            self._short = ctypes.PyDLL(str(path))
            self._short.omp_get_max_threads()
        with contextlib.suppress(AttributeError):  # runtimes older than OpenMP 5
            # A process that is forked has none of libgomp's threads, and would wait for them for ever: end them first.
            os.register_at_fork(before=functools.partial(self._short.omp_pause_resource_all, _PAUSE_HARD))
        self._functions: dict[str, Any] = {}
        for name, letters in CONSTRUCTORS.items():
            self._declare(name, "p" + letters)
        for name, letters in PRIMITIVES.items():
            self._declare(f"{name}_primitive_desc_create", "p" + letters + "h")
        for name, letters in CALLS.items():
            self._declare(name, letters)
        self._size_of = self._typed("memory_desc_get_size", "h", c_size_t)
        self._argument_layout = self._typed("primitive_desc_query_md", "hii", c_void_p)
        self.execute: Any = ctypes.CDLL(str(path)).dnnl_primitive_execute
        """``(primitive, stream, count, arguments)`` -> status, of plain integers."""
        self.execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
        self.set_address: Any = self._functions["memory_set_data_handle"]
        """``(memory, address)`` -> status, of plain integers."""
        version = self._typed("version", "", POINTER(_Version))()[0]
        self.version = (int(version.major), int(version.minor), int(version.patch))
        self._isa = int(self._typed("get_effective_cpu_isa", "", c_int)())

    def new(self, kind: str, name: str, *arguments: Any) -> Handle:
        """Call the constructor ``name`` and return what it made, an object of ``kind`` (as in ``dnnl_<kind>_destroy``).

        Raises UnsupportedError where oneDNN has no implementation, BackendError for any other failure.
        """
        made = c_void_p()
        self.call(name, byref(made), *arguments)
        assert made.value is not None
        return Handle(self, kind, made.value)

    def new_primitive_descriptor(self, kind: str, *arguments: Any) -> Handle:
        """Return the descriptor of a primitive; the last of ``arguments`` are its attributes."""
        return self.new("primitive_desc", f"{kind}_primitive_desc_create", *arguments)

    def call(self, name: str, *arguments: Any) -> None:
        """Call ``dnnl_<name>``; sequences of whole numbers become sizes along axes. Raises as :meth:`new` does."""
        status = self._functions[name](*[Dimensions(*a) if isinstance(a, (tuple, list)) else a for a in arguments])
        if status:
            self.fail(name, status)

    def fail(self, name: str, status: int) -> None:
        """Raise the error for a status that is not success."""
        what = _STATUS[status] if status < len(_STATUS) else f"status {status}"
        if status == _UNIMPLEMENTED:
            raise UnsupportedError(f"{name}: {what}")
        advice = "; a smaller batch_size takes less" if status == _OUT_OF_MEMORY else ""
        raise BackendError(f"oneDNN {'.'.join(map(str, self.version))}: {name}: {what}{advice}")

    def size_bytes(self, memory_descriptor: Handle) -> int:
        """The bytes that values of this layout take, their padding included."""
        return int(self._size_of(memory_descriptor))

    def argument_layout(self, descriptor: Handle, query: int, argument: int) -> Handle:
        """A copy of the memory descriptor that a primitive has for one of its arguments."""
        return self.new("memory_desc", "memory_desc_clone", self._argument_layout(descriptor, query, argument))

    def destructor(self, kind: str) -> Any:
        """The function that frees objects of ``kind``, of a plain integer."""
        return self._typed(f"{kind}_destroy", "h", c_int)

    @property
    def thread_count(self) -> int:
        """How many threads a primitive that is built now in this thread will use."""
        return int(self._short.omp_get_max_threads())

    @thread_count.setter
    def thread_count(self, count: int) -> None:
        self._short.omp_set_num_threads(count)

    @property
    def instruction_set(self) -> str:
        """The best instructions that kernels may use, in oneDNN's words: ``avx512_core``."""
        known = [mask for mask in _ISA_NAMES if mask & self._isa == mask]
        return _ISA_NAMES[max(known)] if known else "no vector instructions"

    @property
    def block_width(self) -> int:
        """How many channels a vector holds: blocked layouts keep so many side by side."""
        return 16 if self._isa & _AVX512 else 8

    @property
    def has_bfloat16(self) -> bool:
        """Whether the processor multiplies bfloat16 numbers; elsewhere oneDNN makes do with float32, at a loss."""
        return self._isa & _AVX512_BF16 == _AVX512_BF16

    @property
    def has_slow_bfloat16(self) -> bool:
        """Whether the processor is one of those, with AVX512_FP16 and without AMX, that do half as many bfloat16 products in a
        second as of float32.
        """
        return self._isa & _AVX512_FP16 == _AVX512_FP16 and self._isa & _AMX != _AMX

    @property
    def problem(self) -> str:
        """Why the library is of no use on this machine; empty where it is."""
        if self.version < _LEAST_VERSION or self.version[0] != _LEAST_VERSION[0]:
            return f"oneDNN {'.'.join(map(str, self.version))} is not 3.2 or a later 3.x"
        return "" if self._isa & _AVX2 == _AVX2 else f"the processor has no AVX2 ({self.instruction_set})"

    def _typed(self, name: str, letters: str, result: Any) -> Any:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = getattr(self._short, f"dnnl_{name}")
            function.argtypes = [TYPES[letter] for letter in letters]
            function.restype = result
        return function

    def _declare(self, name: str, letters: str) -> None:
        self._typed(name, letters, c_int)


def dimensions_at(pointer: Any, count: int) -> tuple[int, ...]:
    """The first ``count`` of the whole numbers that a query has pointed at."""
    return tuple(int(value) for value in pointer[:count])


@functools.cache
def load() -> Library:
    """Return oneDNN, loaded once for the process. Raises BackendError that says why it cannot be used."""
    if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
        raise BackendError(
            f"oneDNN's wheels are for Linux on x86-64; this is {platform.system()} on {platform.machine()}"
        )
    wanted = os.environ.get(_LIBRARY_VARIABLE, "")
    if wanted == "off":
        raise BackendError(f"{_LIBRARY_VARIABLE}=off")
    path = Path(wanted) if wanted else _find()
    if path is None:
        raise BackendError("oneDNN is not installed: pip install onednn-cpu-gomp")
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        advice = "; install the system's package libgomp1" if "libgomp" in str(error) else ""
        raise BackendError(f"{path} cannot be loaded: {error}{advice}") from None
    if library.problem:
        raise BackendError(library.problem)
    return library


def problem() -> str | None:
    """Why oneDNN cannot be used here; None where it can."""
    try:
        load()
    except BackendError as error:
        return str(error)
    return None


def _find() -> Path | None:
    """The library in its wheel, or among the libraries of the environment."""
    for wheel in _WHEELS:
        try:
            files: Sequence[importlib.metadata.PackagePath] = importlib.metadata.distribution(wheel).files or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate())).resolve() if file.name == _FILE else None
            if path is not None and path.is_file():
                return path
    path = Path(sys.prefix, "lib", _FILE)
    return path if path.is_file() else None


@contextlib.contextmanager
def _openmp_settings() -> Iterator[None]:
    """While the OpenMP runtime is loaded: how to wait and how many threads to use, unless the user has said so.

    It reads the environment once, at the latest at its first call.
    """
    added = openmp_settings()
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
