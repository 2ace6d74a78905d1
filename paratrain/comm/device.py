"""What the exchanges between GPUs ask of CUDA and of NCCL: some twenty calls, behind which a fake can stand."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy.typing as npt

from paratrain.comm.communicator import Array
from paratrain.comm.progress import Condition

__all__ = ["DEFAULT_DEVICE", "Collectives", "DeviceArray", "ExchangeDevice", "open_device"]

DEFAULT_DEVICE = "paratrain.comm.cuda:CupyDevice"

DeviceArray = Any
"""A flat C-contiguous array on a GPU. Exchanges only ask it for slices ``array[start:stop]``, ``len``, ``dtype``, ``nbytes``."""


class ExchangeDevice(Protocol):
    """One rank's GPU, and two streams on it: the computation's, which others fill, and the exchange's own.

    What is *started* here goes to the exchange's stream; its work is done in the order in which it was started. Between the
    two streams, and between ranks, nothing is ordered but by `follow`, `computed` and `done`. Calls raise DeviceError.
    """

    @property
    def identity(self) -> str:
        """What no other GPU of the same node has."""

    @property
    def description(self) -> str:
        """The GPU for a message: ``GPU 2 (0000:3b:00.0)``."""

    @property
    def process(self) -> str:
        """The same for ranks that are threads of one process, and for no others: these see each other's arrays anyway."""

    # -- memory --------------------------------------------------------------------------------------------------

    def allocate(self, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        """Zeros in a block of their own, which other processes may open. The block lives as long as its arrays do."""

    def export(self, array: DeviceArray) -> bytes:
        """A handle by which other processes of this node can open what `allocate` gave."""

    def open(self, handle: bytes, count: int, dtype: npt.DTypeLike) -> DeviceArray:
        """Another process's block; its GPU may be the same one. To be given back by `close` while its owner still has it."""

    def close(self, array: DeviceArray) -> None:
        """Give back what `open` gave. Nothing that uses the array may still be under way."""

    def reach(self, array: DeviceArray) -> None:
        """See to it that this GPU can use the array of another rank of this process."""

    def pin(self, host: Array) -> bool:
        """Pin host memory for copies that run beside others; whether that could be done. Copies are right without it."""

    def unpin(self, host: Array) -> None:
        """The reverse of a `pin` that returned True."""

    # -- work ----------------------------------------------------------------------------------------------------

    def add(self, arrays: Sequence[DeviceArray], scale: float, out: DeviceArray) -> None:
        """Start ``out = scale * (((a0 + a1) + a2) + ...)``; `out` may be any one of the arrays."""

    def copy(self, source: DeviceArray, destination: DeviceArray) -> None:
        """Start a copy between arrays on GPUs."""

    def download(self, source: DeviceArray, host: Array) -> None:
        """Start a copy to the host."""

    def upload(self, host: Array, destination: DeviceArray) -> None:
        """Start a copy from the host."""

    # -- order ---------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """What is started from now on waits, on the GPU, for what the computation's stream has been given so far."""

    def computed(self) -> Condition:
        """The question whether the computation's stream has done what it has been given so far."""

    def done(self) -> Condition:
        """The question whether everything that has been started so far is done."""

    def synchronize(self) -> None:
        """Return when everything that has been started is done."""

    # -- NCCL ----------------------------------------------------------------------------------------------------

    @property
    def nccl_problem(self) -> str:
        """Why NCCL cannot be used in this process; empty where it can."""

    @property
    def nccl_shares_gpus(self) -> bool:
        """Whether this NCCL takes several ranks on one GPU."""

    def nccl_identity(self) -> Any:
        """A new identity for a group of ranks, which pickles."""

    def join_nccl(self, identity: Any, size: int, rank: int) -> Collectives:
        """This rank's place in the group. Returns when all of its ranks have called; may be called in any thread."""


class Collectives(Protocol):
    """NCCL's sums over a group of ranks, started in the exchange's stream. All ranks start the same ones in the same order."""

    def group(self) -> AbstractContextManager[None]:
        """What is started within is started together, as one."""

    def reduce_scatter(self, array: DeviceArray) -> None:
        """The array is cut into as many equal pieces as there are ranks; piece r of rank r's becomes the sum."""

    def all_gather(self, array: DeviceArray) -> None:
        """The reverse way: piece r of every rank's array becomes that of rank r's."""

    def reduce(self, array: DeviceArray, root: int) -> None:
        """The root's array becomes the sum."""

    def broadcast(self, array: DeviceArray, root: int) -> None:
        """Every rank's array becomes the root's."""

    def check(self) -> None:
        """Raise DeviceError if something that was started has failed."""

    def abort(self) -> None:
        """Give everything up, and let go of the other ranks, whatever is under way."""

    def close(self) -> None:
        """Leave the group, when nothing is under way."""


def open_device(index: int = 0, name: str = DEFAULT_DEVICE, *, compute_stream: Any = None) -> ExchangeDevice:
    """CUDA's GPU of this number, by the class that ``module:Class`` names, for a computation in this stream (that which is
    current, where None). Raises DeviceError or MissingDependencyError.
    """
    module, _, attribute = name.partition(":")
    device: ExchangeDevice = getattr(importlib.import_module(module), attribute)(index, compute_stream)
    return device
