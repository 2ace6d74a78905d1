"""The CUDA kernels of ``paratrain/backends/cupy/kernels``: compiled when first used, and launched."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.backends.cupy.noting import note

__all__ = ["FAMILIES", "STORAGE_NAMES", "KernelModule", "options", "source"]

FAMILIES = tuple(
    sorted(
        entry.name.removesuffix(".cu")
        for entry in resources.files("paratrain.backends.cupy").joinpath("kernels").iterdir()
        if entry.name.endswith(".cu")
    )
)
"""The names of the files of kernels."""
STORAGE_NAMES = ("float32", "float64", "float16", "bfloat16")
"""The types for which each is compiled."""

_DEFINITIONS = {"float64": "STORAGE_IS_DOUBLE", "float16": "STORAGE_IS_HALF", "bfloat16": "STORAGE_IS_BFLOAT16"}
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_THREADS = 256
_BLOCKS_PER_PROCESSOR = 32


@functools.cache
def source(family: str) -> str:
    """Return the text of a family, before it that of common.cuh and of the headers it includes.

    Errors of compilers name the files and their lines.
    """
    folder = resources.files("paratrain.backends.cupy").joinpath("kernels")
    text = folder.joinpath(f"{family}.cu").read_text("utf-8")
    headers = ("common.cuh", *_INCLUDE.findall(text))
    parts = [(name, folder.joinpath(name).read_text("utf-8")) for name in headers]
    return "\n".join(f'#line 1 "{name}"\n{part}' for name, part in (*parts, (f"{family}.cu", _INCLUDE.sub("", text))))


def options(dtype: npt.DTypeLike) -> tuple[str, ...]:
    """Return the compiler's options for values stored as ``dtype``."""
    name = np.dtype(dtype).name
    assert name in STORAGE_NAMES
    definition = _DEFINITIONS.get(name)
    return ("-std=c++17", *([f"-D{definition}"] if definition else []))


class KernelModule:
    """The kernels of one family for one type of values, on the current GPU.

    Arguments are arrays (their addresses), None (a null pointer), Python's ints (``int``; OverflowError beyond 32 bits),
    floats and bools (``ACCUMULATE``, ``int``), and numpy's scalars as they are. Work goes to the current stream.
    """

    def __init__(self, family: str, dtype: npt.DTypeLike) -> None:
        cupy = gpu.library()
        self._family = family
        self._module = cupy.RawModule(code=source(family), options=options(dtype), backend="nvrtc")
        self._accumulate = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self._most_blocks = int(properties["multiProcessorCount"]) * _BLOCKS_PER_PROCESSOR
        self._functions: dict[str, Any] = {}

    def launch(self, name: str, count: int, *arguments: Any, per_thread: int = 1) -> None:
        """Run ``name(count, *arguments)`` with about one thread for ``per_thread`` of ``count`` values; nothing for none."""
        if count:
            blocks = min(-(-count // (_THREADS * per_thread)), self._most_blocks)
            self.launch_blocks(name, blocks, _THREADS, count, *arguments)

    def launch_blocks(self, name: str, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
        """Run ``name(*arguments)`` in ``blocks`` blocks of ``threads`` threads."""
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
        if blocks:
            note(self._family)
            function((blocks,), (threads,), tuple(map(self._argument, arguments)), shared_mem=shared_bytes)

    def prepared(self, name: str, blocks: int, threads: int, *arguments: Any) -> Callable[[], None]:
        """What does the same whenever it is called, and costs less then; the kernel has run before."""
        values = tuple(map(self._argument, arguments))
        return functools.partial(self._functions[name], (blocks,), (threads,), values)

    def _argument(self, value: Any) -> Any:
        if value is None:
            return np.uint64(0)
        if isinstance(value, int):
            return np.int32(value)
        if isinstance(value, float):
            return self._accumulate(value)
        return value
