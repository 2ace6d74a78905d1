"""NCCL's exchange between GPUs, of one node or of many: every rank owns a part of every slice."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.device import Collectives, ExchangeDevice
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.patience import wait_until
from paratrain.comm.progress import Condition, Work
from paratrain.errors import CommunicationError, DeviceError

__all__ = ["NCCL", "NcclExchange", "join_nccl", "why_not_nccl"]

NCCL = "nccl"
"""What `--exchange` calls it."""

# Equal pieces are cut at multiples of this many elements: 64 bytes of float32.
_ALIGNMENT = 16


class NcclExchange(Exchange):
    """A reduce-scatter of the gradients, and an all-gather of the parameters.

    NCCL cuts an array into equal pieces. What is left of a slice, less than 16 elements for each rank, goes to the last rank,
    within the same group of calls. How and in which order NCCL adds is its own affair.

    All ranks must start the same calls in the same order, whatever their timing: first the sums of a step, in the order of
    the slices, then their spreads. So every sum of a step must have been begun before a spread can be: the caller posts all
    of them before it waits for one.
    """

    name: ClassVar[str] = NCCL
    most_slices: int = 1 << 20

    def __init__(
        self,
        communicator: Communicator,
        arrays: FlatArrays,
        slices: Sequence[Part],
        scale: float = 1.0,
        *,
        device: ExchangeDevice,
    ) -> None:
        super().__init__(communicator, arrays, slices, scale)
        self._device = device
        self._collectives = join_nccl(communicator, device)
        self._turn = 0
        # CuPy's own way to let go waits for what is under way, which may never end.
        self._abandon = weakref.finalize(self, self._collectives.abort)

    def owned(self, index: int) -> Part:
        start, stop = self.slices[index]
        piece, rank, size = self._piece(index), self.communicator.rank, self.communicator.size
        return start + rank * piece, stop if rank == size - 1 else start + (rank + 1) * piece

    def sum(self, index: int) -> Work:
        yield lambda: self._turn == index
        start, stop = self.slices[index]
        rest = start + self._piece(index) * self.communicator.size
        try:
            self._device.follow()
            with self._collectives.group():
                if start < rest:
                    self._collectives.reduce_scatter(self.arrays.diff[start:rest])
                if rest < stop:
                    self._collectives.reduce(self.arrays.diff[rest:stop], self.communicator.size - 1)
            first, last = self.owned(index)
            if first < last and self.scale != 1.0:
                own = self.arrays.diff[first:last]
                self._device.add([own], self.scale, own)
        except DeviceError as error:
            self._fail(error)
        self._turn += 1
        yield self._checked(self._device.done())

    def spread(self, index: int) -> Work:
        yield lambda: self._turn == len(self.slices) + index
        start, stop = self.slices[index]
        rest = start + self._piece(index) * self.communicator.size
        try:
            self._device.follow()
            with self._collectives.group():
                if start < rest:
                    self._collectives.all_gather(self.arrays.data[start:rest])
                if rest < stop:
                    self._collectives.broadcast(self.arrays.data[rest:stop], self.communicator.size - 1)
        except DeviceError as error:
            self._fail(error)
        self._turn = (self._turn + 1) % (2 * len(self.slices))
        yield self._checked(self._device.done())

    def abort(self) -> None:
        """Abort NCCL's group: what is under way on the GPU ends as well."""
        self._abandon()

    def close(self) -> None:
        """Leave NCCL's group; after `abort` there is nothing to do."""
        if self._abandon.detach() is not None:
            self._device.synchronize()
            self._collectives.close()

    def _piece(self, index: int) -> int:
        start, stop = self.slices[index]
        return (stop - start) // self.communicator.size // _ALIGNMENT * _ALIGNMENT

    def _checked(self, is_done: Condition) -> Condition:
        """The same question, which looks for errors as long as the answer is no: NCCL reports those only when asked."""

        def ask() -> bool:
            try:
                if is_done():
                    return True
                self._collectives.check()
            except DeviceError as error:
                self._fail(error)
            return False

        return ask

    def _fail(self, error: DeviceError) -> None:
        self.abort()
        raise CommunicationError(f"{_place(self.communicator)}: NCCL: {error}") from error


def why_not_nccl(communicator: Communicator, device: ExchangeDevice) -> str:
    """Why these ranks cannot exchange by NCCL, the same sentence for all of them; empty where they can. All ranks call it."""
    nodes = communicator.node_of_rank
    can_share = device.nccl_shares_gpus
    places = communicator.allgather_objects((device.identity, device.description, device.nccl_problem, can_share))
    for rank, (_, _, problem, _) in enumerate(places):
        if problem:
            return f"rank {rank} has no NCCL: {problem}"
    ranks_of_gpu: dict[tuple[int, str], list[int]] = defaultdict(list)
    for rank, (identity, _, _, _) in enumerate(places):
        ranks_of_gpu[nodes[rank], identity].append(rank)
    for ranks in ranks_of_gpu.values():
        if len(ranks) > 1 and not all(places[rank][3] for rank in ranks):
            return (
                f"ranks {' and '.join(map(str, ranks))} share {places[ranks[0]][1]} of node {nodes[ranks[0]]}, and NCCL wants "
                "a GPU for each rank: start as many ranks as there are GPUs, or exchange otherwise (--exchange sharded)"
            )
    return ""


def join_nccl(communicator: Communicator, device: ExchangeDevice) -> Collectives:
    """Make all ranks a group of NCCL's. All ranks call it. CommunicationError, the same for all, where that cannot be.

    NCCL waits for all ranks without a limit, and cannot be interrupted. It does so in a thread of its own, so that this rank
    hears when another one has ended, and shows that it waits.
    """
    problem = why_not_nccl(communicator, device)
    identity = None
    if not problem and communicator.rank == 0:
        try:
            identity = device.nccl_identity()
        except DeviceError as error:
            problem = f"rank 0 cannot set NCCL up: {error}"
    identity, problem = communicator.broadcast_object((identity, problem))
    if problem:
        raise CommunicationError(f"{_place(communicator)}: {problem}")
    joined: list[Collectives] = []
    failures: list[Exception] = []

    def join() -> None:
        try:
            joined.append(device.join_nccl(identity, communicator.size, communicator.rank))
        except Exception as error:  # raised again below, in the rank's own thread
            failures.append(error)

    thread = threading.Thread(target=join, daemon=True, name="join NCCL")
    thread.start()
    wait_until(lambda: not thread.is_alive(), lambda: communicator.check_all_present("joining by NCCL"))
    if failures:
        raise CommunicationError(
            f"{_place(communicator)}: joining by NCCL failed: {failures[0]}. NCCL_DEBUG=WARN lets NCCL say why (in containers "
            "often too small a /dev/shm); --exchange sharded does without it"
        ) from failures[0]
    return joined[0]


def _place(communicator: Communicator) -> str:
    return f"rank {communicator.rank} of {communicator.size}"
