"""The order of the records within each epoch: as they lie, shuffled, or shuffled window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.data.kept import Kept
from paratrain.random import hash_key, permutation

__all__ = ["Order", "Sequential", "Shuffled", "order_of"]

Numbers = npt.NDArray[np.uint64]

_PIECES = 16  # stretches of the source that a window is made of
_LARGE = 1 << 17  # records: a window of so many takes milliseconds to shuffle, and is made ahead of time


class Order(Protocol):
    """Says which record comes at each place of each epoch; for any number of threads at once."""

    def records(self, epoch: int, places: Numbers) -> Numbers:
        """Return the record at each of ``places``, which rise, of an epoch."""


class Sequential:
    """Every epoch as the records lie in their source."""

    def records(self, epoch: int, places: Numbers) -> Numbers:
        return places


class Shuffled:
    """Each epoch in an order of its own, a permutation that depends on (seed, name of the layer, epoch) alone.

    Without ``window`` all records are mixed, every permutation being as likely as any other. With it an epoch is read
    window by window, so that at any time only a few stretches of the source are read from: the records are cut into
    pieces of ``window // 16`` consecutive ones (at least 1; the last piece may be shorter), the pieces are shuffled,
    each 16 of them that follow each other make a window (each ``window``, if that is less), and the records within it
    are shuffled. ``pieces`` cuts the source into stretches of these lengths instead, and each is a window by itself.

    Orders are worked out when they are needed, large ones by a thread ahead of time, and the last few are kept.
    """

    def __init__(
        self, count: int, seed: int, layer_name: str, *, window: int | None = None, pieces: Sequence[int] | None = None
    ) -> None:
        assert count > 0 and (window is None or (window > 0 and pieces is None))
        self._name = (seed, "shuffle", layer_name)
        self._pieces_at_once = 1
        if pieces is not None:
            self._lengths = np.array(pieces, np.uint64)
        elif window is None or window >= count:
            self._lengths = np.array([count], np.uint64)
        else:
            self._pieces_at_once = min(window, _PIECES)
            length = max(1, window // _PIECES)
            self._lengths = np.full(-(-count // length), length, np.uint64)
            self._lengths[-1] = count - length * (len(self._lengths) - 1)
        assert int(self._lengths.sum()) == count
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._dtype = np.uint32 if count < 1 << 32 else np.uint64  # half the memory for most
        self._large = int(self._lengths.max()) * self._pieces_at_once >= _LARGE
        kept = 2 if self._large else 8
        self._epochs = Kept(self._make_epoch, kept, "paratrain-shuffle")
        self._windows = Kept(self._make_window, kept, "paratrain-shuffle")

    def records(self, epoch: int, places: Numbers) -> Numbers:
        """Return the record at each of ``places``, which rise, of an epoch."""
        starts = self._epochs(epoch).starts
        windows = np.searchsorted(starts, places, side="right") - 1
        first, last = int(windows[0]), int(windows[-1])
        if self._large:
            self._make_ahead(epoch, last, int(places[-1]))
        records = np.empty(len(places), np.uint64)
        if first == last:
            records[...] = self._windows(epoch, first)[places - starts[first]]
            return records
        for window in np.unique(windows).tolist():
            here = windows == window
            records[here] = self._windows(epoch, window)[places[here] - starts[window]]
        return records

    def window_end(self, epoch: int, place: int) -> int:
        """Return the place after the last one of the window that ``place`` lies in."""
        starts = self._epochs(epoch).starts
        following = int(np.searchsorted(starts, np.uint64(place), side="right"))
        return int(starts[following]) if following < len(starts) else int(self._lengths.sum())

    def _make_epoch(self, epoch: int, _: int) -> _Epoch:
        pieces = permutation(hash_key(*self._name, epoch), len(self._lengths))
        ends = np.cumsum(self._lengths[pieces])
        starts = np.concatenate((np.zeros(1, np.uint64), ends[self._pieces_at_once - 1 : -1 : self._pieces_at_once]))
        return _Epoch(pieces, starts)

    def _make_window(self, epoch: int, window: int) -> Numbers:
        """The records of a window in the order in which they are read."""
        first = window * self._pieces_at_once
        pieces = self._epochs(epoch).pieces[first : first + self._pieces_at_once]
        lengths = self._lengths[pieces]
        order = permutation(hash_key(*self._name, epoch, window), int(lengths.sum()))
        # Record i of the window, before it is shuffled, is record i + offset of the source.
        offsets = self._starts[pieces] - (np.cumsum(lengths) - lengths)
        order += offsets[0] if len(pieces) == 1 else np.repeat(offsets, lengths.astype(np.int64))[order]
        return order.astype(self._dtype)

    def _make_ahead(self, epoch: int, window: int, place: int) -> None:
        """In the last quarter of a window let a thread make the next one, which may take seconds if it is very large."""
        starts = self._epochs(epoch).starts
        is_last = window + 1 == len(starts)
        end = self.window_end(epoch, place)
        if end - place > (end - int(starts[window])) // 4:
            return
        self._windows.make_ahead(*((epoch + 1, 0) if is_last else (epoch, window + 1)))


def order_of(count: int, seed: int, layer_name: str, *, shuffle: bool, window: int) -> Order:
    """Return the order of ``count`` records that ``shuffle`` and ``shuffle_window`` ask for; a window implies the former."""
    if window:
        return Shuffled(count, seed, layer_name, window=window)
    return Shuffled(count, seed, layer_name) if shuffle else Sequential()


class _Epoch(NamedTuple):
    """How an epoch is read."""

    pieces: Numbers
    """The stretches of the source, in order."""
    starts: Numbers
    """The place at which each window starts."""
