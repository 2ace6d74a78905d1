"""Do all ranks hold the same? A checksum of every parameter is compared over the ranks, and the first that differs is named."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.comm import Communicator
from paratrain.data_parallel.ranks import TreeRanks
from paratrain.errors import RanksDifferError
from paratrain.net.parameters import ParameterEntry
from paratrain.snapshot import positions
from paratrain.solvers import Solver
from paratrain.watching.state import name_ranks

__all__ = ["SamenessCheck"]

# A blob that differs is searched in pieces of so many values, of which the first that differs is shown to all ranks.
_PIECE_COUNT = 4096
_MOST_NAMES = 8
_MOST_VALUES = 6


class SamenessCheck:
    """Compares the ranks every ``every`` iterations, between the update and the snapshot. All ranks make one.

    Compared are all parameters (also those that do not learn), the iteration, the learning rate of the next one, the seed,
    the state of the policies and the place in the data; and running statistics where these are averaged in every step, or
    are those of all ranks' batches: otherwise each rank has its own, until the next step or test begins.

    The checksum is CRC-32 of each blob: it finds every difference within 32 neighbouring bits, so any single value, and all
    but one in 2^32 of others. (Measured, 240 MB on one core: CRC-32 60 to 105 ms, SHA-1 150, BLAKE2b 310.) One message of
    a few bytes goes up and down unless ranks differ.
    """

    def __init__(self, solver: Solver, communicator: Communicator, every: int) -> None:
        assert every > 0
        self._solver = solver
        self._communicator = communicator
        self._every = every
        solver.after_update.append(self._check_if_due)

    def _check_if_due(self) -> None:
        if self._solver.is_due(self._every):
            self.check()

    def check(self) -> None:
        """Compare now; all ranks call it. Raises RanksDifferError, the same on every rank."""
        self._solver.activity.enter("verify")
        place = self._place()
        sums = [zlib.crc32(_values(entry).data) for entry in self._entries]
        everything = hashlib.blake2b(repr((place, sums)).encode(), digest_size=8).digest()
        if len(set(self._communicator.allgather_objects(everything))) == 1:
            return
        found: list[tuple[list[tuple[str, str]], list[int]]] = self._communicator.allgather_objects((place, sums))
        raise RanksDifferError(
            f"after {self._solver.iter} iterations the ranks are not the same: "
            f"{self._describe([place for place, _ in found], [sums for _, sums in found])}. Training stops here, and snapshots "
            "written before stay as they are. Damaged memory or a bad link can do this (--check-links tries the links), and so "
            "can a layer or script that changes parameters on one rank"
        )

    @property
    def _entries(self) -> list[ParameterEntry]:
        net, ranks = self._solver.net, self._solver.ranks
        is_averaged = isinstance(ranks, TreeRanks) and ranks.averages_statistics
        with_statistics = is_averaged or net.context.normalizes_over_ranks
        return [entry for entry in net.parameters.entries if with_statistics or not entry.is_statistic]

    def _place(self) -> list[tuple[str, str]]:
        """Where the run is, as names and values; random numbers follow from the seed and the iteration."""
        solver = self._solver
        return [
            ("the iteration", str(solver.iter)),
            ("the learning rate", repr(solver.lr)),
            ("the seed", str(solver.seed)),
            ("the state of the policies", repr(sorted(solver.policy_state().items()))),
            *((f"the next batch of layer '{data.layer}'", str(data.next_batch)) for data in positions(solver.net)),
        ]

    def _describe(self, places: Sequence[list[tuple[str, str]]], sums: Sequence[list[int]]) -> str:
        for items in zip(*places, strict=True):
            if len(set(items)) > 1:
                return f"{items[0][0]} is {_by_value([value for _, value in items])}"
        differing = [
            entry
            for entry, of_ranks in zip(self._entries, zip(*sums, strict=True), strict=True)
            if len(set(of_ranks)) > 1
        ]
        first = differing[0]
        kind = "statistic" if first.is_statistic else "parameter"
        text = f"{kind} {first.label} (layer '{first.layer_name}', blob {first.blob_index}) is the first that differs"
        if len(differing) > 1:
            names = [entry.label for entry in differing[1 : _MOST_NAMES + 1]]
            more = "" if len(differing) - 1 == len(names) else " and others"
            text += f", of {len(differing)} of {len(self._entries)} blobs (also {', '.join(names)}{more})"
        return f"{text}; {self._find_value(first)}"

    def _find_value(self, entry: ParameterEntry) -> str:
        """Say which value of ``entry`` is the first that differs, and what it is on each rank; all ranks call it."""
        values = _values(entry)
        own = np.array([zlib.crc32(piece.data) for piece in _pieces(values)], np.uint32)
        checksums = self._communicator.allgather_objects(own)
        start = int(_first_difference(checksums)) * _PIECE_COUNT
        pieces = self._communicator.allgather_objects(values[start : start + _PIECE_COUNT].copy())
        within = _first_difference([piece.view(f"u{piece.itemsize}") for piece in pieces])
        place = ", ".join(str(index) for index in np.unravel_index(start + within, entry.blob.shape))
        shown = _by_value(
            [f"{float(piece[within]):.9g}" for piece in pieces], [piece[within].tobytes() for piece in pieces]
        )
        return f"its first value that does is {start + within}, at [{place}] of {entry.blob.shape}: {shown}"


def _values(entry: ParameterEntry) -> npt.NDArray[Any]:
    """The values as the layers see them, (count,)."""
    values: npt.NDArray[Any] = np.ascontiguousarray(entry.blob.read_data(None)).reshape(-1)
    return values


def _pieces(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (values[start : start + _PIECE_COUNT] for start in range(0, values.size, _PIECE_COUNT))


def _first_difference(arrays: Sequence[npt.NDArray[Any]]) -> int:
    """The lowest index at which not all arrays are equal."""
    differs = np.zeros(arrays[0].shape, bool)
    for other in arrays[1:]:
        differs |= other != arrays[0]
    return int(np.argmax(differs))


def _by_value(texts: Sequence[str], keys: Sequence[Hashable] | None = None) -> str:
    """``0.5 on ranks 0 and 2; 0.25 on rank 1``: one part for each of the different ``keys``, which are the texts if not given."""
    ranks_of_key: dict[Hashable, list[int]] = {}
    for rank, key in enumerate(texts if keys is None else keys):
        ranks_of_key.setdefault(key, []).append(rank)
    parts = [f"{texts[ranks[0]]} on {name_ranks(ranks)}" for ranks in ranks_of_key.values()]
    more = len(parts) - _MOST_VALUES
    return "; ".join(parts[:_MOST_VALUES]) + (f"; and {more} more values" if more > 0 else "")
