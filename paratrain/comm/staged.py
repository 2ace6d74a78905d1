"""Gradients and parameters on a GPU, exchanged on the host: copied there, exchanged as a CPU's are, and copied back."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence

from paratrain.comm.allreduce import Allreduce
from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.device import ExchangeDevice
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.progress import Work
from paratrain.errors import DeviceError

__all__ = ["Staged"]


class Staged(Exchange):
    """Any exchange between arrays of the host, for arrays of a GPU.

    ``make_host(count, slices)`` makes it, for arrays of `count` elements in which the slices lie one behind the other. Its
    arrays are pinned where the system allows it. While one slice is copied others are summed and sent; sums are the host's.
    No array of the GPU is ever given to MPI, whose libraries need not know GPUs.
    """

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        make_host: Callable[[int, Sequence[Part]], Exchange],
        *,
        device: ExchangeDevice,
    ) -> None:
        super().__init__(communicator, arrays, slices)  # the exchange on the host scales
        self._device = device
        compact: list[Part] = []
        for start, stop in self.slices:
            begin = compact[-1][1] if compact else 0
            compact.append((begin, begin + stop - start))
        self._host = make_host(compact[-1][1] if compact else 0, compact)
        self._compact = compact
        self._shift = [start - begin for (start, _), (begin, _) in zip(self.slices, compact, strict=True)]
        self._turn = 0
        self._pinned = _pin(device, [self._host.arrays.data, self._host.arrays.diff])
        weakref.finalize(self, _unpin, device, self._pinned)

    @property
    def name(self) -> str:  # type: ignore[override]  # that of the exchange which does the work
        return self._host.name

    @property
    def is_pinned(self) -> bool:
        """Whether all copies to and from the host can run beside others."""
        return len(self._pinned) == len({id(self._host.arrays.data), id(self._host.arrays.diff)})

    def owned(self, index: int) -> Part:
        start, stop = self._host.owned(index)
        return start + self._shift[index], stop + self._shift[index]

    def sum(self, index: int) -> Work:
        shift, host = self._shift[index], self._host.arrays.diff
        start, stop = self._compact[index]
        self._device.follow()
        self._device.download(self.arrays.diff[start + shift : stop + shift], host[start:stop])
        yield self._device.done()
        if isinstance(self._host, Allreduce):  # all ranks call it in the same order, whenever their copies are done
            yield lambda: self._turn == index
            self._turn = (index + 1) % len(self.slices)
        yield from self._host.sum(index)
        start, stop = self._host.owned(index)
        if start < stop:
            self._device.upload(host[start:stop], self.arrays.diff[start + shift : stop + shift])
            yield self._device.done()

    def spread(self, index: int) -> Work:
        if isinstance(self._host, Allreduce):  # every rank has made the update
            return
        shift, host = self._shift[index], self._host.arrays.data
        first, last = self._compact[index]
        start, stop = self._host.owned(index)
        if start < stop:
            self._device.follow()
            self._device.download(self.arrays.data[start + shift : stop + shift], host[start:stop])
            yield self._device.done()
        yield from self._host.spread(index)
        for begin, end in ((first, min(start, last)), (max(stop, first), last)) if start < stop else ((first, last),):
            if begin < end:
                self._device.upload(host[begin:end], self.arrays.data[begin + shift : end + shift])
        yield self._device.done()

    def close(self) -> None:
        """Unpin the arrays on the host."""
        _unpin(self._device, self._pinned)


def _pin(device: ExchangeDevice, arrays: Sequence[Array]) -> list[Array]:
    different = {id(array): array for array in arrays}.values()
    return [array for array in different if array.size == 0 or device.pin(array)]


def _unpin(device: ExchangeDevice, arrays: list[Array]) -> None:
    while arrays:
        array = arrays.pop()
        if array.size:
            with contextlib.suppress(DeviceError):  # CUDA may have ended before
                device.unpin(array)
