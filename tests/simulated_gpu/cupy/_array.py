"""cupy.ndarray: a wrapper around a numpy array that lies in simulated device memory, as strict as CuPy's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from simulated import counts, forbid_in_capture, late, record, wait
from simulated.copies import by_address
from simulated.memory import Block, block_at
from simulated.pinned import is_pinned

from cupy import _operators

__all__ = ["ndarray"]


class _Flags:
    """As numpy's flags, of which CuPy has three."""

    def __init__(self, host: Any, owns_data: bool) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = host.flags.c_contiguous, host.flags.f_contiguous, owns_data
        self.fnc = self.f_contiguous and not self.c_contiguous
        self.forc = self.f_contiguous or self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class ndarray(_operators.Operators):  # noqa: N801
    """An array on a GPU: ``_host`` is the numpy array on its bytes, ``_memory`` what keeps them."""

    __slots__ = ("__weakref__", "_data", "_host", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        memptr: Any = None,
        strides: Sequence[int] | None = None,
        order: str = "C",
    ) -> None:
        sizes = tuple(map(int, shape)) if isinstance(shape, Sequence) else (int(shape),)
        dtype = np.dtype(dtype)
        if any(size < 0 for size in sizes):
            raise ValueError("Negative dimensions are not allowed")
        if strides is None:
            strides = np.ndarray(sizes, dtype, b"", strides=[0] * len(sizes)).strides if dtype.itemsize == 0 else None
        count = math.prod(sizes) * dtype.itemsize
        if memptr is None:
            from cupy.cuda.memory import alloc

            memptr = alloc(count)
        self._memory = memptr.mem
        self._data = None
        self.base: Any = None
        if count == 0:
            self._host = np.empty(sizes, dtype, order)  # type: ignore[call-overload]
            return
        view = memptr.mem.view(memptr.ptr - memptr.mem.ptr)
        self._host = np.ndarray(sizes, dtype, view, 0, strides, "C" if order in ("C", None) else "F")

    @classmethod
    def _of(cls, host: Any, memory: Any, base: Any = None) -> ndarray:
        """The array on these bytes of this memory."""
        array = cls.__new__(cls)
        array._host, array._memory, array._data, array.base = host, memory, None, base
        return array

    def _view(self, host: Any) -> ndarray:
        """Another look at some of the same bytes."""
        return ndarray._of(host, self._memory, self if self.base is None else self.base)

    @property
    def _blocks(self) -> list[Block]:
        """The blocks that the array lies in: one, or none where it is empty or another library's."""
        block = block_at(self._memory.ptr) if self.size else None
        return [] if block is None else [block]

    # -- what it is ----------------------------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape, lambda self, shape: setattr(self._host, "shape", shape))
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: self._view(self._host.T))
    mT = property(lambda self: self._view(self._host.swapaxes(-1, -2)))  # noqa: N815
    flags = property(lambda self: _Flags(self._host, self.base is None))

    @property
    def data(self) -> Any:
        if self._data is None:
            from cupy.cuda.memory import MemoryPointer

            offset = self._host.__array_interface__["data"][0] - self._memory.ptr if self.size else 0
            self._data = MemoryPointer(self._memory, offset)
        return self._data

    @property
    def device(self) -> Any:
        from cupy.cuda.device import Device

        return Device(self._memory.device_id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self._host.flags.c_contiguous else self.strides
        pointer = (int(self.data.ptr), False)
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": pointer,
            "strides": strides,
            "version": 3,
            "stream": 1,
        }

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, *, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    # -- to the host, which waits for the GPU --------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        from cupy.cuda.stream import get_current_stream

        if out is not None:
            if not isinstance(out, np.ndarray):
                raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
            if out.dtype != self.dtype:
                raise TypeError(f"{out.dtype.name} array cannot be obtained from {self.dtype.name} array")
            if out.shape != self.shape:
                raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
            if not out.flags.c_contiguous and not out.flags.f_contiguous:
                raise RuntimeError("`out` cannot be specified when copying to non-contiguous ndarray")
        pointer = None if stream is None else stream.ptr
        counts["download"] += 1
        host = self._host
        forbid_in_capture("a copy to the host", pointer, RuntimeError)  # to pinned memory as well
        if self.size and not _is_copied_as_it_lies(host, order, out):
            counts["allocate"] += 1
            with self.device, get_current_stream(self._memory.device_id) if stream is None else stream:
                pass  # here CuPy makes a copy in order, and leaves what `use` has made the current stream
        if out is not None and not blocking and is_pinned(out) and late.is_on():
            target = by_address(out)
            with self.device:
                record(lambda: np.copyto(target, host), pointer, self._blocks, [(out.ctypes.data, out.nbytes)])
            return out
        if blocking or stream is None:
            counts["synchronize"] += 1
        found = np.empty_like(host, order=order, subok=False) if out is None else out
        if late.is_on():
            with self.device:
                wait(record(lambda: np.copyto(found, host), pointer, self._blocks))
        else:
            np.copyto(found, host)
        return found

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype.name} array cannot be set to {self.dtype.name} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self._host.flags.c_contiguous or self._host.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        pointer = None if stream is None else stream.ptr
        counts["upload"] += 1
        host, source, ranges = self._host, arr, [(arr.ctypes.data, arr.nbytes)]
        forbid_in_capture("a copy from the host", pointer, RuntimeError)  # from pinned memory as well
        if late.is_on():
            is_plain = arr.flags.c_contiguous if host.flags.c_contiguous else arr.flags.f_contiguous
            if is_pinned(arr) and is_plain:
                source = by_address(arr)
            else:  # of which a copy is made first
                source, ranges = np.array(arr), []
        with self.device:
            record(lambda: np.copyto(host, source), pointer, self._blocks, ranges)

    def _item(self) -> Any:
        return self.get().item()

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return bytes(self.get().tobytes(order))  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, specification: str) -> str:
        return format(self.get(), specification)

    def __reduce__(self) -> Any:
        import cupy

        return cupy.array, (self.get(),)

    # -- parts and forms -----------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> ndarray:
        return _operators.get_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _operators.set_item(self, key, value)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        sizes = shape[0] if len(shape) == 1 else shape
        return _operators.reform(self, "reshape", lambda host: host.reshape(sizes, order=order))

    def ravel(self, order: str = "C") -> ndarray:
        return _operators.reform(self, "ravel", lambda host: host.ravel(order))

    def flatten(self, order: str = "C") -> ndarray:
        return self.copy(order).ravel(order)

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._host.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return self._view(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        return self._view(self._host.squeeze(axis))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ndarray:
        return self._view(self._host.diagonal(offset, axis1, axis2))

    def view(self, dtype: Any = None, array_class: Any = None) -> ndarray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        if not copy and self.dtype == np.dtype(dtype) and order == "K":
            return self
        return _operators.compute("astype", lambda host: host.astype(dtype, order=order), self)

    def copy(self, order: str = "C") -> ndarray:
        return _operators.compute("copy", lambda host: host.copy(order), self)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        _operators.set_item(self, ..., value)

    def scatter_add(self, slices: Any, value: Any) -> None:
        import cupy

        cupy.add.at(self, slices, value)

    # -- numpy's functions, given such arrays --------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        import cupy

        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        ours = getattr(cupy, ufunc.__name__, None)
        if ours is None or any(isinstance(value, np.ndarray) for value in (*inputs, kwargs.get("out"))):
            return NotImplemented
        return ours(*inputs, **kwargs) if method == "__call__" else getattr(ours, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        ours = getattr(cupy, func.__name__, None)
        if ours is None or not func.__module__.startswith("numpy") or any(issubclass(t, np.ndarray) for t in types):
            return NotImplemented
        return ours(*args, **kwargs)


def _is_copied_as_it_lies(host: Any, order: str, out: Any) -> bool:
    c, f = host.flags.c_contiguous, host.flags.f_contiguous
    if out is not None:
        return bool((out.flags.c_contiguous and c) or (out.flags.f_contiguous and f))
    return bool(c if order in "Cc" else f if order in "Ff" else c or f)
