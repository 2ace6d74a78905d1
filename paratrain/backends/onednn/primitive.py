"""Primitives: one operation on arrays of fixed shapes and layouts, built once and then run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import ExecuteArgument, Handle, Library, UnsupportedError
from paratrain.backends.onednn.names import Algorithm, Argument, Query

__all__ = ["Arena", "Descriptor", "Engine", "Primitive", "added_argument", "aligned", "attributes", "best"]

Array = npt.NDArray[Any]

_ALIGNMENT = 64
_CPU = 1
_IN_ORDER = 1
_USER_SCRATCHPAD = 1
_POST_OPERATION = 32768
_SLOW = ("ref", "simple")
"""Parts of the names of implementations that are plain loops, up to a thousand times slower than a kernel."""


def aligned(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return zeros that begin at a cache line. Zeros matter: the padding of blocked layouts is read."""
    raw = np.zeros(size_bytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size_bytes]


class Arena:
    """One buffer that primitives use in turn. What one leaves there is lost with the next."""

    def __init__(self) -> None:
        self.array = aligned(0)

    def reserve(self, size_bytes: int) -> None:
        """Make the buffer at least so large."""
        if self.array.nbytes < size_bytes:
            self.array = aligned(size_bytes)


class Engine:
    """The CPU as oneDNN sees it, the stream in which primitives run, and the memory that they share.

    One thread at a time may run the primitives of an engine; several engines may run side by side.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.handle = library.new("engine", "engine_create", _CPU, 0)
        self.stream = library.new("stream", "stream_create", self.handle, _IN_ORDER)
        self.scratchpad = Arena()
        """What primitives need while they run. Left to the library it would belong to a thread, and crash in another."""


def attributes(library: Library, operations: Handle) -> Handle:
    """Return the attributes of a primitive that uses its caller's scratchpad and ends in a chain of operations."""
    made = library.new("primitive_attr", "primitive_attr_create")
    library.call("primitive_attr_set_scratchpad_mode", made, _USER_SCRATCHPAD)
    library.call("primitive_attr_set_post_ops", made, operations)
    return made


def added_argument(index: int) -> int:
    """The number of the argument that a descriptor's ``added`` layout of this index describes."""
    return _POST_OPERATION * (index + 1) | Argument.SOURCE_1


def _ending(library: Library, added: Sequence[Layout], relu_slope: float | None, accumulate: bool) -> Handle:
    """The operations that end a primitive: arrays are added to what it makes, then what lies in its destination, and it goes
    through a ReLU.
    """
    operations = library.new("post_ops", "post_ops_create")
    for layout in added:
        library.call("post_ops_append_binary", operations, Algorithm.BINARY_ADD, layout.handle)
    if accumulate:
        library.call("post_ops_append_sum", operations, 1.0, 0, 0)
    if relu_slope is not None:
        library.call("post_ops_append_eltwise", operations, Algorithm.ELTWISE_RELU, relu_slope, 0.0)
    return operations


class Descriptor:
    """A primitive that could be built: with the layouts it would want and the implementation oneDNN has chosen.

    ``arguments`` are those of ``dnnl_<kind>_primitive_desc_create`` after the engine; layouts may be None. With
    ``accumulate`` the primitive adds to its destination instead of writing it, and with ``relu_slope`` it ends in a ReLU of
    this negative slope; before that arrays in the layouts ``added`` are added. Raises UnsupportedError where oneDNN has nothing.
    """

    def __init__(
        self,
        engine: Engine,
        kind: str,
        *arguments: Any,
        added: Sequence[Layout] = (),
        relu_slope: float | None = None,
        accumulate: bool = False,
    ) -> None:
        self.engine, self.kind = engine, kind
        library = engine.library
        given = [a.handle if isinstance(a, (Layout, Descriptor)) else a for a in arguments]
        leading = [] if kind == "reorder" else [engine.handle]
        ending = attributes(library, _ending(library, added, relu_slope, accumulate))
        self.handle: Handle = library.new_primitive_descriptor(kind, *leading, *given, ending)
        name = ctypes.c_char_p()
        library.call("primitive_desc_query", self.handle, Query.IMPLEMENTATION, 0, ctypes.byref(name))
        self.implementation = (name.value or b"").decode()

    def layout(self, argument: int) -> Layout:
        """The layout in which the primitive takes or gives an argument; of size 0 where it has no such argument."""
        library = self.engine.library
        return Layout(library, library.argument_layout(self.handle, Query.ARGUMENT_LAYOUT, argument))

    @property
    def is_slow(self) -> bool:
        """Whether the implementation is one of oneDNN's plain loops."""
        return any(word in self.implementation for word in _SLOW)


def best(candidates: Sequence[Descriptor]) -> Descriptor:
    """Return the first with a kernel of its own, else the first that leans on a matrix product.

    Raises UnsupportedError where all are plain loops: then numpy is the faster way.
    """
    quick = [candidate for candidate in candidates if not candidate.is_slow]
    if not quick:
        names = ", ".join(sorted({candidate.implementation for candidate in candidates})) or "nothing"
        kind = candidates[0].kind if candidates else "primitive"
        raise UnsupportedError(f"{kind}: oneDNN offers {names}, plain loops")
    return next((candidate for candidate in quick if "gemm" not in candidate.implementation), quick[0])


class Primitive:
    """A built primitive, to be run on flat arrays that hold its arguments in the layouts of the descriptor.

    ``arguments`` say which arrays :meth:`run` takes, in this order. Arrays that begin at a multiple of 64 bytes are the fastest.
    """

    def __init__(self, descriptor: Descriptor, *arguments: int) -> None:
        engine, library = descriptor.engine, descriptor.engine.library
        self.implementation = descriptor.implementation
        self._engine, self._library = engine, library
        self._handle = library.new("primitive", "primitive_create", descriptor.handle)
        layouts = [descriptor.layout(argument) for argument in arguments]
        scratchpad = descriptor.layout(Argument.SCRATCHPAD)
        self._scratch_index = len(layouts) if scratchpad.size_bytes else -1
        numbers = list(arguments)
        if scratchpad.size_bytes:
            engine.scratchpad.reserve(scratchpad.size_bytes)
            layouts.append(scratchpad)
            numbers.append(Argument.SCRATCHPAD)
        self._sizes = [layout.size_bytes for layout in layouts]
        self._memories = [
            library.new("memory", "memory_create", layout.handle, engine.handle, None) for layout in layouts
        ]
        self._arrays: list[Any] = [None] * len(layouts)
        pairs = zip(numbers, self._memories, strict=True)
        self._passed = (ExecuteArgument * len(layouts))(*[ExecuteArgument(n, memory.value) for n, memory in pairs])
        address = ctypes.addressof(self._passed)
        self._call = (self._handle.value, engine.stream.value, len(layouts), address)
        self._execute = library.execute

    def run(self, *arrays: Array) -> None:
        """Compute; done on return. The arrays are kept until the next run with others."""
        held = self._arrays
        for index, array in enumerate(arrays):
            if array is not held[index]:
                self._point(index, array)
        if self._scratch_index >= 0 and held[self._scratch_index] is not self._engine.scratchpad.array:
            self._point(self._scratch_index, self._engine.scratchpad.array)
        status = self._execute(*self._call)
        if status:
            self._library.fail(self.implementation, status)

    def _point(self, index: int, array: Array) -> None:
        assert array.nbytes >= self._sizes[index] and array.flags.c_contiguous, "an array does not fit its layout"
        self._library.call("memory_set_data_handle", self._memories[index], array.ctypes.data)
        self._arrays[index] = array
