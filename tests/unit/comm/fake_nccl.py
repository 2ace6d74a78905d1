"""NCCL among ranks that are threads, on the GPUs of `fake_gpu`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from paratrain.comm.communicator import Array
from paratrain.errors import DeviceError

if TYPE_CHECKING:
    from tests.unit.comm.fake_gpu import FakeArray, FakeDevice


class Group:
    """For each call, in each rank's own order: what the ranks that have come to it want."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.meeting = threading.Barrier(size)
        self.calls: dict[int, dict[int, tuple[str, int, FakeArray]]] = {}
        self.performed: set[int] = set()


class FakeCollectives:
    """A call waits in its rank's stream until all ranks have come to theirs, which must be the same one."""

    def __init__(self, group: Group, device: FakeDevice, rank: int) -> None:
        self._group, self._device, self._rank = group, device, rank
        self._count = 0
        self.is_in_group = False
        self.is_aborted = False

    @contextmanager
    def group(self) -> Iterator[None]:
        self.is_in_group = True
        yield
        self.is_in_group = False

    def reduce_scatter(self, array: FakeArray) -> None:
        assert len(array) % self._group.size == 0
        self._call("reduce_scatter", 0, array)

    def all_gather(self, array: FakeArray) -> None:
        assert len(array) % self._group.size == 0
        self._call("all_gather", 0, array)

    def reduce(self, array: FakeArray, root: int) -> None:
        self._call("reduce", root, array)

    def broadcast(self, array: FakeArray, root: int) -> None:
        self._call("broadcast", root, array)

    def check(self) -> None:
        if self._device.refuses == "nccl":
            raise DeviceError("NCCL_ERROR_SYSTEM_ERROR: a link is down")

    def abort(self) -> None:
        self.is_aborted = True
        self._device.aborted_count += 1
        self._device.exchange.waiting.clear()

    def close(self) -> None:
        assert not self._device.exchange.waiting, "destroyed while something is under way"

    def _call(self, kind: str, root: int, array: FakeArray) -> None:
        assert self.is_in_group
        assert not self.is_aborted
        assert len(array)
        number, group = self._count, self._group
        self._count += 1

        def operation() -> bool:
            if number in group.performed:
                return True
            calls = group.calls.setdefault(number, {})
            calls[self._rank] = kind, root, array
            if len(calls) == group.size:
                wanted = {(kind, root, len(array)) for kind, root, array in calls.values()}
                assert len(wanted) == 1, f"the ranks' calls differ: {wanted}"
                _perform(kind, root, [calls[rank][2].values for rank in range(group.size)])
                group.performed.add(number)
                del group.calls[number]
            return number in group.performed

        self._device.exchange.waiting.append(operation)


def _perform(kind: str, root: int, arrays: list[Array]) -> None:
    pieces = [array.reshape(len(arrays), -1) if "_" in kind else array for array in arrays]
    if kind in ("reduce", "reduce_scatter"):
        total = sum(arrays[1:], arrays[0].copy())
        for rank, array in enumerate(arrays):
            if kind == "reduce":
                array[...] = total if rank == root else np.nan  # what NCCL leaves there is its own affair
            else:
                own = total.reshape(len(arrays), -1)[rank].copy()
                array[...] = np.nan
                pieces[rank][rank] = own
    elif kind == "broadcast":
        for array in arrays:
            array[...] = arrays[root]
    else:
        gathered = np.stack([piece[rank] for rank, piece in enumerate(pieces)])
        for piece in pieces:
            piece[...] = gathered
