"""Which values this rank updates, where several ranks train together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["RootUpdatesAll", "Shares", "UpdatePart"]

UpdatePart = Callable[[int, int], bool]
"""Updates the values from the first number up to the second; False where it met a gradient that is not finite."""


class Shares(Protocol):
    """The parts of the flat arrays that this rank owns: their gradients are complete here, and their history lies here."""

    @property
    def is_spread(self) -> bool:
        """Whether several ranks own parts. Then all ranks call every method here, at the same time."""

    @property
    def owned(self) -> Sequence[tuple[int, int]]:
        """The parts of this rank, each from its first number up to its second; none where it updates nothing."""

    @property
    def gradients(self) -> Sequence[Any] | None:
        """Where the flat gradients of several ranks lie whose sum is still to be made, in this order; None where this
        rank's ``diff`` holds the sum.
        """

    @property
    def gradient_scale(self) -> float:
        """What the sum of the gradients has to be multiplied by."""

    def sum(self, values: npt.NDArray[np.float64]) -> None:
        """Replace ``values`` by their sums over the owners."""

    def update(self, update_part: UpdatePart) -> bool:
        """Call ``update_part`` for every part that this rank owns, and bring what it makes to the other ranks.

        Returns whether all calls have returned True. Other parts may still be on their way when it returns.
        """

    def spread(self) -> None:
        """Return when all ranks have what the owners have updated; all of them call it, in every step."""

    def gather(self, array: npt.NDArray[Any]) -> None:
        """Complete the root's ``array``, laid out like the flat arrays, by the parts of the other owners'."""


class RootUpdatesAll:
    """Caffe's way: the root, or a rank that is alone, updates everything. It is :class:`Shares`."""

    is_spread = False
    gradients: Sequence[Any] | None = None
    gradient_scale = 1.0

    def __init__(self, value_count: int, *, is_root: bool) -> None:
        self.owned: Sequence[tuple[int, int]] = [(0, value_count)] if is_root else []

    def sum(self, values: npt.NDArray[np.float64]) -> None:
        """Nothing: the sum over one owner."""

    def update(self, update_part: UpdatePart) -> bool:
        """Update all of it at once."""
        return all(update_part(*part) for part in self.owned)

    def spread(self) -> None:
        """Nothing: callbacks bring the root's parameters to the other ranks."""

    def gather(self, array: npt.NDArray[Any]) -> None:
        """Nothing: it is complete."""
