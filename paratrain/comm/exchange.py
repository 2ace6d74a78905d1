"""What ranks do with their gradients in every step: sum them where they are used, and bring the result to all.

The flat gradient is cut into slices. A slice is exchanged in two halves: `sum` brings the sum over all ranks to the slice's
owners, who then update the parameters of their part; `spread` brings these to every rank. Which rank owns which part, and
how the messages go, is what exchanges differ in. Everything else - which slices there are, when they are ready, what an
update is - is the caller's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.progress import Work

__all__ = ["Exchange", "FlatArrays", "Part", "Share", "cut", "place_among"]

Part = tuple[int, int]
"""The elements from the first number up to, not including, the second."""

# Messages of other kinds have the tags below.
_FIRST_TAG = 16
# Parts are cut at multiples of this many elements after the start of a slice: 64 bytes of float32, a cache line.
_ALIGNMENT = 16


@dataclass(frozen=True)
class FlatArrays:
    """The flat arrays of this rank: parameters and gradients.

    Where the ranks of a node share memory, `node_diffs` are the gradients of all of them, by local rank, and `data` is one
    array that all of them see.
    """

    data: Array
    diff: Array
    node_diffs: tuple[Array, ...] | None = None


class Exchange(ABC):
    """Sums slices of `arrays.diff` over the ranks and spreads slices of `arrays.data` from their owners.

    `slices` are the same on all ranks. For each slice, in every step, all ranks run `sum` and later `spread`, once. `scale`
    multiplies the sums. The order of addition is fixed, so that the same ranks get the same bits in every run.
    """

    name: ClassVar[str]
    """What `--exchange` calls it."""
    most_slices: int = 8
    """Slices that should be under way at the same time: enough to keep all ranks busy, few enough for what they need."""
    sums_in_cache: ClassVar[bool] = False
    """Whether the first thing that `sum` waits for is all other ranks, and the sum itself is better put off until its
    result is used, while it is in the core's cache: with `leaves_sums`, `sum` does no more than wait, and who uses a part
    adds `arrays.node_diffs`, and multiplies by `scale`."""

    def __init__(
        self, communicator: Communicator, arrays: FlatArrays, slices: Sequence[Part], scale: float = 1.0
    ) -> None:
        self.communicator = communicator
        self.arrays = arrays
        self.slices = tuple(slices)
        self.scale = scale
        self.leaves_sums = False

    @abstractmethod
    def owned(self, index: int) -> Part:
        """The part of slice `index` whose sum arrives at this rank, and which it spreads; empty where it owns none."""

    @abstractmethod
    def sum(self, index: int) -> Work:
        """Sum slice `index`: afterwards this rank's `diff` holds, in the part it owns, `scale` times the sum over all ranks.

        The rest of the slice holds nothing of use.
        """

    @abstractmethod
    def spread(self, index: int) -> Work:
        """Bring slice `index` of `data` from its owners to all ranks. Afterwards this rank may write to its `diff` again."""

    def close(self) -> None:  # noqa: B027, most hold nothing
        """Give back what the exchange holds, when no job is under way. All ranks call it; twice is harmless."""

    def abort(self) -> None:  # noqa: B027, most wait for nobody but in their jobs
        """Let go of the other ranks, whatever is under way: no more jobs can be run. May be called in any thread."""

    @staticmethod
    def _tags(index: int) -> tuple[int, int]:
        """The tags of the messages of slice `index`: of its gradients, and of its parameters."""
        return _FIRST_TAG + 2 * index, _FIRST_TAG + 2 * index + 1

    def _multiply(self, part: Part) -> None:
        if self.scale != 1.0:
            owned = self.arrays.diff[part[0] : part[1]]
            owned *= self.scale


def cut(part: Part, count: int, index: int, length: int = 1) -> Part:
    """Cut a part into `count` pieces of about equal length, and return `length` of them from piece `index` on.

    The first ones may be longer. From `count` on there are no more pieces: what is returned is empty, at the end of the part.
    """
    start, stop = part
    units = -(-(stop - start) // _ALIGNMENT)
    first, last = (start + _ALIGNMENT * (-(-units * edge // count)) for edge in (index, index + length))
    return min(first, stop), min(last, stop)


class Share:
    """What one of ``size`` members owns of every slice: of as many equal pieces as ``pieces`` are in all, its own number of them,
    one where None.
    """

    def __init__(self, member: int, size: int, pieces: Sequence[int] | None = None) -> None:
        counts = [1] * size if pieces is None else pieces
        self._count, self._first, self._length = sum(counts), sum(counts[:member]), sum(counts[member : member + 1])

    def of(self, part: Part) -> Part:
        """The part of a slice that the member owns."""
        return cut(part, self._count, self._first, self._length)


def place_among(communicator: Communicator, ranks: Sequence[int] | None) -> tuple[list[int], int]:
    """The `ranks` that exchange with each other, all of them where None, and the place of this rank among them."""
    members = list(range(communicator.size)) if ranks is None else list(ranks)
    return members, members.index(communicator.rank)
