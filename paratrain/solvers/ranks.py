"""What a solver asks of the other ranks beside the exchange of its callbacks: a few numbers and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paratrain.net import Parameters

__all__ = ["Alone", "Ranks", "agree", "gather", "mean"]

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


def agree(ranks: Ranks, wishes: int) -> int:
    """Return the bits that at least one rank has set in its ``wishes``, the same on every rank. 4 bits."""
    if ranks.size == 1:
        return wishes
    counts: Values = np.array([wishes >> bit & 1 for bit in range(_BITS)], np.float64)
    ranks.sum_to_root(counts)
    ranks.broadcast(counts)
    return sum(1 << bit for bit in range(_BITS) if counts[bit] > 0)
