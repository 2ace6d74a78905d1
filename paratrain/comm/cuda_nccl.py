"""A group of NCCL's ranks, through what CuPy offers of NCCL. Not yet run on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from paratrain.comm.device import DeviceArray

__all__ = ["NcclGroup"]

_IN_PROGRESS = 7


class NcclGroup:
    """See :class:`paratrain.comm.device.Collectives`. All is done in place, in the stream at this address.

    ``call(name)`` selects the GPU and makes a DeviceError of what CuPy raises; ``nccl`` is CuPy's module of that name, and
    ``group`` its NcclCommunicator.
    """

    def __init__(
        self,
        call: Callable[[str], AbstractContextManager[None]],
        nccl: Any,
        group: Any,
        stream: int,
        size: int,
        rank: int,
    ) -> None:
        self._call, self._nccl, self._group, self._stream, self._size, self._rank = (
            call,
            nccl,
            group,
            stream,
            size,
            rank,
        )
        self._types = {"f4": nccl.NCCL_FLOAT32, "f8": nccl.NCCL_FLOAT64}

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        with self._call("ncclGroupStart"):
            self._nccl.groupStart()
        try:
            yield
        finally:
            with self._call("ncclGroupEnd"):
                self._nccl.groupEnd()

    def reduce_scatter(self, array: DeviceArray) -> None:
        all_pieces, own, count = self._pieces(array)
        with self._call("ncclReduceScatter"):
            self._group.reduceScatter(all_pieces, own, count, self._type(array), self._nccl.NCCL_SUM, self._stream)

    def all_gather(self, array: DeviceArray) -> None:
        all_pieces, own, count = self._pieces(array)
        with self._call("ncclAllGather"):
            self._group.allGather(own, all_pieces, count, self._type(array), self._stream)

    def reduce(self, array: DeviceArray, root: int) -> None:
        place, count = array.data.ptr, len(array)
        with self._call("ncclReduce"):
            self._group.reduce(place, place, count, self._type(array), self._nccl.NCCL_SUM, root, self._stream)

    def broadcast(self, array: DeviceArray, root: int) -> None:
        place, count = array.data.ptr, len(array)
        with self._call("ncclBroadcast"):
            self._group.broadcast(place, place, count, self._type(array), root, self._stream)

    def check(self) -> None:
        with self._call("a sum of NCCL's"):
            try:
                self._group.check_async_error()
            except KeyError as error:  # CuPy has no name for it
                if error.args != (_IN_PROGRESS,):
                    raise RuntimeError(f"NCCL error {error}") from error

    def abort(self) -> None:
        with self._call("ncclCommAbort"):
            self._group.abort()

    def close(self) -> None:
        with self._call("ncclCommDestroy"):
            self._group.destroy()

    def _pieces(self, array: DeviceArray) -> tuple[int, int, int]:
        """The addresses of all pieces and of this rank's, and the elements of one."""
        count, address = len(array) // self._size, int(array.data.ptr)
        return address, address + self._rank * count * array.dtype.itemsize, count

    def _type(self, array: DeviceArray) -> int:
        return int(self._types[array.dtype.str[1:]])
