"""The test of links through the memory that the ranks of a node share: the blocks and flags that training uses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.flags import Flags
from paratrain.comm.progress import Condition, Work
from paratrain.comm.shared_memory import share
from paratrain.errors import ParatrainError
from paratrain.linktest.pattern import CANARY, GUARD_BYTES, difference, known_bytes
from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.linktest.timed import LinkTimeoutError, TimedCommunicator

__all__ = ["SHARED", "SharedLinks", "check_shared", "measure_shared"]

Edge = tuple[int, int]

SHARED = "shared"
_SMALL_COUNT = 100
_LARGE_ELEMENTS = 2 << 20  # float32: 8 MiB
_LARGE_COUNT = 7
_ALIGNMENT = 64


class SharedLinks:
    """For each link a piece of the memory that either of its ranks has given, and the flags of both."""

    def __init__(
        self, communicator: Communicator, edges: Sequence[Edge], piece_bytes: int, blocks: list[Array], flags: Flags
    ) -> None:
        self.rank = communicator.rank
        nodes = communicator.node_of_rank
        mates = [rank for rank, node in enumerate(nodes) if node == nodes[self.rank]]
        self._local = {rank: number for number, rank in enumerate(mates)}
        self._edges = list(edges)
        self._piece_bytes, self._blocks, self._flags = piece_bytes, blocks, flags

    @classmethod
    def make(cls, communicator: Communicator, edges: Sequence[Edge], limits: Limits) -> SharedLinks | str:
        """Memory for these links, each between ranks of one node; or a sentence that says why there is none.

        All ranks call it together, also those without such a link, and all get the same kind of answer.
        """
        used_bytes = max(limits.byte_count + GUARD_BYTES, 4 * _LARGE_ELEMENTS if limits.measure else 0)
        piece_bytes = -(-used_bytes // _ALIGNMENT) * _ALIGNMENT
        degree = sum(communicator.rank in edge for edge in edges)
        blocks = share(communicator, [degree * piece_bytes], np.uint8)
        if isinstance(blocks, str):
            return blocks
        counters = share(communicator, [Flags.length(len(edges))], np.int64)
        if isinstance(counters, str):
            return counters
        flags = Flags(counters[0], communicator.local_rank)
        return cls(communicator, edges, piece_bytes, blocks[0], flags)

    def __contains__(self, edge: object) -> bool:
        return edge in self._edges

    def piece(self, owner: int, edge: Edge) -> Array:
        """The bytes for this link in the memory of rank `owner`, one of its ends; both ends see them."""
        number = [one for one in self._edges if owner in one].index(edge)
        return self._blocks[self._local[owner]][number * self._piece_bytes : (number + 1) * self._piece_bytes]

    def announce(self, edge: Edge) -> Condition:
        """Tell the other end that this one has got a step further; the question whether the other has, too."""
        index = self._edges.index(edge)
        step = self._flags.announce(Flags.READY, index)
        return self._flags.reached(self._local[self.other(edge)], Flags.READY, index, step)

    def is_ahead(self, edge: Edge) -> Condition:
        """The question whether the other end is a step further than this one."""
        index = self._edges.index(edge)
        step = self._flags.next_step(Flags.READY, index)
        return self._flags.reached(self._local[self.other(edge)], Flags.READY, index, step)

    def other(self, edge: Edge) -> int:
        """The rank at the other end."""
        return edge[1] if self.rank == edge[0] else edge[0]

    def transfer(self, edge: Edge, repeats: Sequence[int], byte_count: int, wrong: dict[Edge, str]) -> Work:
        """Known bytes both ways, in the memory of either end; what arrives wrong here is said in `wrong`.

        Training writes a gradient in the memory of its own rank, and parameters in that of the node's lowest.
        """
        ways = [(sender, number) for sender in edge for number in range(2)]
        for repeat in repeats:
            for sender, number in ways:
                receiver = edge[1] if sender == edge[0] else edge[0]
                place = self.piece(edge[number], edge)[: byte_count + GUARD_BYTES]
                message = known_bytes(sender, receiver, 2 * repeat + number, byte_count)
                if self.rank == receiver:
                    place[:] = CANARY
                yield self.announce(edge)
                if self.rank == sender:
                    place[:byte_count] = message
                yield self.announce(edge)
                if self.rank == receiver and edge not in wrong:
                    found = difference(place, message)
                    if found:
                        wrong[edge] = f"from rank {sender} to rank {receiver}: {found}"
                yield self.announce(edge)  # before that nobody writes to the place again


def check_shared(
    timed: TimedCommunicator, links: SharedLinks, edges: Sequence[Edge], repeats: Sequence[int], limits: Limits
) -> dict[Edge, LinkResult]:
    """What this rank finds about its links of `edges`, all of which are used at the same time."""
    found: dict[Edge, LinkResult] = {}
    wrong: dict[Edge, str] = {}
    waiting: dict[Edge, tuple[Work, Condition]] = {
        edge: (links.transfer(edge, repeats, limits.byte_count, wrong), lambda: True)
        for edge in edges
        if timed.rank in edge
    }

    def poll() -> bool:
        for edge, (work, is_answered) in list(waiting.items()):
            try:
                if not is_answered():
                    continue
                question = next(work, None)
            except (ParatrainError, OSError) as error:
                found[edge] = _result(edge, Verdict.ERROR, str(error))
                question = None
            if question is None:
                del waiting[edge]
            else:
                waiting[edge] = work, question
        return not waiting

    timed.start_clock(limits.link_s)
    try:
        timed.wait_for(poll, "shared memory")
    except LinkTimeoutError:
        for edge in waiting:
            what = f"rank {links.other(edge)} did not raise its flag in the memory shared with rank {timed.rank}"
            found[edge] = _result(edge, Verdict.HANG, f"{what} within {limits.link_s:g} s")
    for edge in edges:
        if timed.rank in edge and edge not in found:
            found[edge] = _result(edge, Verdict.WRONG_DATA if edge in wrong else Verdict.OK, wrong.get(edge, ""))
    return found


def measure_shared(timed: TimedCommunicator, links: SharedLinks, edge: Edge, limits: Limits) -> tuple[float, float]:
    """Medians: half of the seconds that flags take there and back, and those in which the parent adds a byte of the child's.

    Only the parent's figures count. The child writes its numbers anew each time, as in training.
    """
    what = f"rank {links.other(edge)} did not raise its flag"
    is_parent = timed.rank == edge[0]

    def meet() -> None:
        timed.wait_for(links.announce(edge), what)

    timed.start_clock(limits.link_s)
    flag_times, add_times = [], []
    for _ in range(_SMALL_COUNT + 1):
        begin = time.perf_counter()
        if is_parent:
            meet()
        else:
            timed.wait_for(links.is_ahead(edge), what)
            links.announce(edge)
        flag_times.append(time.perf_counter() - begin)
    timed.start_clock(limits.link_s)
    given = links.piece(edge[1], edge)[: 4 * _LARGE_ELEMENTS].view(np.float32)
    own = np.zeros(_LARGE_ELEMENTS, np.float32)
    for repeat in range(_LARGE_COUNT + 1):
        if not is_parent:
            given[:] = repeat
        meet()
        if is_parent:
            begin = time.perf_counter()
            np.add(own, given, out=own)
            add_times.append(time.perf_counter() - begin)
        meet()
    add_s = statistics.median(add_times[1:]) if is_parent else 0.0  # the first one warms up
    return statistics.median(flag_times[1:]) / 2, add_s / own.nbytes


def _result(edge: Edge, verdict: Verdict, detail: str) -> LinkResult:
    return LinkResult(min(edge), max(edge), SHARED, verdict, detail)
