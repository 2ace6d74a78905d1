"""Kernels: what they take, and how they are launched."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulated import devices, watching
from simulated.compiler import compiled
from simulated.counts import counts
from simulated.errors import CUDARuntimeError
from simulated.memory import Block, block_at
from simulated.streams import forbid_in_capture, record

__all__ = ["Kernel", "load"]

_WITHOUT_ATTRIBUTE = 49152
"""As much shared memory may be asked for at the launch unless the kernel is told to allow more."""
_NUMBERS: dict[type, type[np.generic]] = {int: np.int64, float: np.float64, bool: np.bool_}
"""What Python's numbers are passed as."""
_TYPES = {"i": "an integer", "f": "a floating point number", "h": "a __half", "b": "a __nv_bfloat16", "v": "anything"}


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char),
        ("target_kind", ctypes.c_char),
        ("size", ctypes.c_int),
        ("target_size", ctypes.c_int),
    )


class _Description(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("call", ctypes.c_void_p),
        ("parameter_count", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
    )


def load(source: str, options: tuple[str, ...], expressions: tuple[str, ...] = ()) -> dict[str, Kernel]:
    """The kernels of a source, by name."""
    library = compiled(source, options, expressions)
    first = ctypes.addressof(_Description.in_dll(library, "simulated_kernels"))
    kernels: dict[str, Kernel] = {}
    while True:
        description = _Description.from_address(first + len(kernels) * ctypes.sizeof(_Description))
        if not description.name:
            return kernels
        kernels[description.name.decode()] = Kernel(library, description)


@functools.cache
def _kind(dtype: np.dtype[Any]) -> str:
    """The letter of a type of values, as in kernels.h."""
    return "b" if dtype.name == "bfloat16" else "h" if dtype == np.float16 else "f" if dtype.kind == "f" else "i"


class Kernel:
    """One kernel of a library."""

    def __init__(self, library: ctypes.PyDLL, description: _Description) -> None:
        self._library = library
        self._launch, self._problem = library.simulated_launch, library.simulated_problem
        self._problem.restype = ctypes.c_char_p
        self._description = description
        self.name = description.name.decode()
        count = description.parameter_count
        self._parameters = [
            (p.kind.decode(), p.size, p.target_kind.decode(), p.target_size) for p in description.parameters[:count]
        ]
        self.most_shared_bytes = _WITHOUT_ATTRIBUTE
        self.is_loaded = False
        """Whether it has run: CUDA loads each kernel then, and does not say that this may be recorded."""

    def launch(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared_bytes: int, stream: int | None
    ) -> None:
        """Run it, or note it where the stream captures. TypeError for arguments that its parameters do not take."""
        self._check_sizes(grid, block, shared_bytes)
        if len(arguments) != len(self._parameters):
            raise TypeError(f"{self.name} takes {len(self._parameters)} arguments; found {len(arguments)}")
        values = bytearray(8 * max(len(arguments), 1))
        blocks: list[Block] = []
        for index, (argument, parameter) in enumerate(zip(arguments, self._parameters, strict=True)):
            piece = self._bytes(index, argument, parameter, blocks)
            values[8 * index : 8 * index + len(piece)] = piece
        if not self.is_loaded:
            forbid_in_capture(f"the first run of {self.name}, which loads it,", stream)
            self.is_loaded = True
        counts["launch"] += 1
        sizes = [(touched, touched.size) for touched in blocks]
        extents = watching.extents_of(arguments) if watching.is_on() else []
        record(lambda: self._run(grid, block, values, shared_bytes, sizes, extents), stream, blocks)

    def _check_sizes(self, grid: Sequence[int], block: Sequence[int], shared_bytes: int) -> None:
        threads = block[0] * block[1] * block[2]
        if min(*grid, *block) < 1 or threads > 1024 or block[2] > 64 or grid[0] > 2**31 - 1 or max(grid[1:]) > 65535:
            raise CUDARuntimeError(9, f"{self.name} with a grid of {tuple(grid)} blocks of {tuple(block)} threads")
        if shared_bytes > self.most_shared_bytes:
            raise CUDARuntimeError(1, f"{self.name} with {shared_bytes} bytes of shared memory")

    def _run(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        values: bytearray,
        shared_bytes: int,
        blocks: Sequence[tuple[Block, int]],
        extents: Sequence[watching.Extent],
    ) -> None:
        store = (ctypes.c_char * len(values)).from_buffer(values)
        count = len(self._parameters)
        places = (ctypes.c_void_p * max(count, 1))(*(ctypes.addressof(store) + 8 * index for index in range(count)))
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        with watching.watch(self._library, blocks, extents, math.prod(grid)):
            failed = self._launch(ctypes.byref(self._description), *sizes, ctypes.c_uint(shared_bytes), places)
        if failed or (watching.is_on() and self._problem()):
            problem = watching.explained(self._problem().decode(), self._library)
            raise CUDARuntimeError(719, f"{self.name}: {problem}")
        for touched, size in blocks:
            try:
                touched.check(size)
            except RuntimeError as error:
                touched.mend()
                raise CUDARuntimeError(700, f"{self.name}: {error}") from None

    def _bytes(self, index: int, argument: Any, parameter: tuple[str, int, str, int], blocks: list[Block]) -> bytes:
        """An argument's bytes; the blocks that pointers lie in are added to ``blocks``."""
        kind, size, target_kind, target_size = parameter
        if type(argument) in _NUMBERS:
            argument = _NUMBERS[type(argument)](argument)
        if isinstance(argument, np.generic):
            return self._number(index, argument, kind, size, blocks)
        data = argument if argument is None or hasattr(argument, "ptr") else getattr(argument, "data", None)
        if argument is not None and not hasattr(data, "ptr"):
            raise TypeError(f"Unsupported type {type(argument)}")  # as CuPy
        if kind != "p":
            raise self._error(index, argument, kind, size)
        if data is not argument:
            self._check_target(index, argument.dtype, target_kind, target_size)
        is_null = argument is None or (data is not argument and not argument.size)
        return bytes(8) if is_null else self._pointer(index, data.ptr, blocks)

    def _number(self, index: int, value: np.generic, kind: str, size: int, blocks: list[Block]) -> bytes:
        """A number's bytes; one of 64 bits may be an address."""
        dtype = value.dtype
        if dtype.char not in "?bhilqBHILQefd":
            raise TypeError(f"Unsupported type {type(value)}")
        if kind == "p" and dtype.itemsize == 8 and dtype.kind in "iu":
            return self._pointer(index, int(value), blocks)  # type: ignore[call-overload]
        if ("f" if dtype.kind == "f" else "i", dtype.itemsize) != (kind, size):
            raise self._error(index, value, kind, size)
        return value.tobytes()

    def _pointer(self, index: int, address: int, blocks: list[Block]) -> bytes:
        block = block_at(address) if address else None
        if address and (block is None or not block.is_alive):
            raise CUDARuntimeError(700, f"argument {index} of {self.name} is no address of a GPU")
        if block is not None:
            if not devices.reaches(devices.current(), block.device):
                raise CUDARuntimeError(
                    700, f"argument {index} of {self.name} lies on GPU {block.device}, which is out of reach"
                )
            blocks.append(block)
        return struct.pack("=Q", address)

    def _check_target(self, index: int, dtype: np.dtype[Any], kind: str, size: int) -> None:
        is_bits = kind in "hb" and dtype.char in "hH"
        if kind not in "vs" and (_kind(dtype), dtype.itemsize) != (kind, size) and not is_bits:
            wanted = f"{_TYPES[kind]} of {size} bytes"
            raise TypeError(f"argument {index} of {self.name} is an array of {dtype.name}; it points to {wanted}")

    def _error(self, index: int, argument: Any, kind: str, size: int) -> TypeError:
        wanted = "a pointer" if kind == "p" else f"{_TYPES.get(kind, 'a structure')} of {size} bytes"
        return TypeError(
            f"argument {index} of {self.name} is {argument!r} ({type(argument).__name__}); it takes {wanted}"
        )
