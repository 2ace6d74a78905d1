"""What a solver asks of the other ranks beside the exchange of its callbacks: a few numbers and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.net import Parameters

__all__ = ["Alone", "Ranks", "agree", "agree_with", "announce", "collect", "gather", "mean"]

Values = npt.NDArray[np.float64]

_BITS = 4


class Ranks(Protocol):
    """The ranks that train together. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """The number of this rank; 0 is the root."""

    @property
    def size(self) -> int:
        """The count of ranks."""

    def broadcast_parameters(self, parameters: Parameters) -> None:
        """Bring the root's learnable parameters and running statistics to every rank."""

    def sum_to_root(self, values: Values) -> None:
        """Replace the root's ``values`` by their sums over the ranks; what the others' hold afterwards is of no use."""

    def broadcast(self, values: Values) -> None:
        """Replace ``values`` by the root's on every rank."""

    def share_texts(self, text: str) -> list[str]:
        """Return every rank's text, in the order of the ranks, on every rank."""

    def gather_objects(self, value: Any) -> list[Any] | None:
        """Return every rank's ``value`` (anything that pickles) on the root, in the order of the ranks; None elsewhere."""


class Alone:
    """One rank: there is nobody to ask. It is a :class:`Ranks`."""

    rank = 0
    size = 1

    def broadcast_parameters(self, parameters: Parameters) -> None:
        """Nothing."""

    def sum_to_root(self, values: Values) -> None:
        """Nothing: the sum over one rank."""

    def broadcast(self, values: Values) -> None:
        """Nothing."""

    def share_texts(self, text: str) -> list[str]:
        """The text itself."""
        return [text]

    def gather_objects(self, value: Any) -> list[Any] | None:
        """The value itself."""
        return [value]


def gather(ranks: Ranks, values: Sequence[float]) -> Values:
    """Return, on the root, every rank's ``values`` as the rows of (size, n); elsewhere a table of no use.

    Sums with zeros are exact, so that the root may add the rows in the order of the ranks, whatever the tree.
    """
    table = np.zeros((ranks.size, len(values)))
    table[ranks.rank] = values
    ranks.sum_to_root(table)
    return table


def mean(ranks: Ranks, value: float) -> float:
    """Return the mean of every rank's ``value``, the same bits on every rank."""
    total: Values = np.array([value], np.float64)
    ranks.sum_to_root(total)
    ranks.broadcast(total)
    return float(total[0]) / ranks.size


def collect(ranks: Ranks, wishes: int) -> int:
    """Return, on the root, the bits that at least one rank has set in its ``wishes``; elsewhere its own. 4 bits."""
    if ranks.size == 1:
        return wishes
    counts = _spread(wishes)
    ranks.sum_to_root(counts)
    return _join(counts) if ranks.rank == 0 else wishes


def announce(ranks: Ranks, decision: int) -> int:
    """Return the root's ``decision``, 4 bits, on every rank."""
    if ranks.size == 1:
        return decision
    counts = _spread(decision)
    ranks.broadcast(counts)
    return _join(counts)


def agree(ranks: Ranks, wishes: int) -> int:
    """Return the bits that at least one rank has set in its ``wishes``, the same on every rank. 4 bits."""
    return announce(ranks, collect(ranks, wishes))


def agree_with(ranks: Ranks, wishes: int, number: int) -> tuple[int, int]:
    """As :func:`agree`, with one of the root's numbers (below 2^53) beside the bits: the same on every rank."""
    if ranks.size == 1:
        return wishes, number
    values = np.append(_spread(wishes), float(number) if ranks.rank == 0 else 0.0)
    ranks.sum_to_root(values)
    ranks.broadcast(values)
    return _join(values), int(values[_BITS])


def _spread(bits: int) -> Values:
    return np.array([bits >> bit & 1 for bit in range(_BITS)], np.float64)


def _join(counts: Values) -> int:
    return sum(1 << bit for bit in range(_BITS) if counts[bit] > 0)
