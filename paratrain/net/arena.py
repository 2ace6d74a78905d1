"""Where in one block of memory things may lie whose lives are known: those that never live at the same time may share a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Life", "largest_need_bytes", "place"]

_ALIGNMENT = 64


@dataclass(frozen=True)
class Life:
    """So many bytes that are needed from one moment to another, both included; moments are whole numbers."""

    size_bytes: int
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether there is a moment at which both are needed."""
        return self.first <= other.last and other.first <= self.last


def place(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Return an offset for each life, a multiple of 64 bytes, and the size of the block; lives that meet do not overlap there.

    The largest are placed first, each into the smallest gap that will do between those that it meets (the "greedy by
    size" of Pisarchyk and Lee, 2020, https://arxiv.org/abs/2001.03288). Every size is rounded up to 64 bytes.
    """
    sizes = [-(-life.size_bytes // _ALIGNMENT) * _ALIGNMENT for life in lives]
    offsets = [0] * len(lives)
    placed: list[int] = []
    for index in sorted(range(len(lives)), key=lambda number: (-sizes[number], lives[number].first, number)):
        met = sorted(
            (offsets[other], offsets[other] + sizes[other]) for other in placed if lives[other].meets(lives[index])
        )
        end, smallest, found = 0, -1, -1
        for start, stop in met:
            gap = start - end
            if gap >= sizes[index] and (found < 0 or gap < smallest):
                smallest, found = gap, end
            end = max(end, stop)
        offsets[index] = end if found < 0 else found
        placed.append(index)
    return offsets, max((offset + size for offset, size in zip(offsets, sizes, strict=True)), default=0)


def largest_need_bytes(lives: Sequence[Life]) -> int:
    """The most bytes that are needed at one moment; no block can be smaller."""
    return max(
        (sum(other.size_bytes for other in lives if other.first <= life.first <= other.last) for life in lives),
        default=0,
    )
