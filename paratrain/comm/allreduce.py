"""MPI's own Allreduce, for comparison and for networks whose MPI does better than we."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.progress import Work

__all__ = ["Allreduce"]


class Allreduce(Exchange):
    """Every rank gets the whole sum and owns all: the update, and what a solver remembers, is done by each for itself.

    How and in which order MPI adds is its own affair. Needs a communicator whose ``isum`` works.
    """

    name: ClassVar[str] = "mpi"

    def __init__(
        self, communicator: Communicator, arrays: FlatArrays, slices: Sequence[Part], scale: float = 1.0
    ) -> None:
        assert arrays.node_diffs is None, "each rank updates parameters of its own"
        super().__init__(communicator, arrays, slices, scale)

    def owned(self, index: int) -> Part:
        return self.slices[index]

    def sum(self, index: int) -> Work:
        yield self.communicator.isum(self.arrays.diff[slice(*self.slices[index])]).test
        self._multiply(self.slices[index])

    def spread(self, index: int) -> Work:
        """Nothing: every rank has made the same update."""
        yield from ()
