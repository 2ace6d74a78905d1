"""Ranges of the flat arrays that learn alike, and the pieces of them that stay in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paratrain.net import ParameterEntry

__all__ = ["PIECE_COUNT", "Run", "add_in_order", "find_runs", "l2_norm", "pieces", "regularize_l1", "regularize_l2"]

PIECE_COUNT = 65536
"""Values in a piece: 256 KiB of float32, so that data, diff, two histories and a scratch piece fit a core's second-level cache.

Smaller pieces cost more calls than the cache saves.
"""


@dataclass(frozen=True)
class Run:
    """Values ``start`` to ``stop`` of the flat arrays, which learn with the same multipliers."""

    start: int
    stop: int
    lr_mult: float
    decay_mult: float


def find_runs(entries: Sequence[ParameterEntry], *, apart: bool = False) -> list[Run]:
    """Return the runs of the flat arrays that these learning ``entries`` lie in, which are in the order of the arrays.

    ``apart`` makes a run of each entry.
    """
    runs: list[Run] = []
    for entry in entries:
        last = runs[-1] if runs else None
        alike = last is not None and (last.lr_mult, last.decay_mult) == (entry.lr_mult, entry.decay_mult)
        if last is not None and alike and last.stop == entry.start and not apart:
            runs[-1] = Run(last.start, entry.stop, last.lr_mult, last.decay_mult)
        elif entry.stop > entry.start:
            runs.append(Run(entry.start, entry.stop, entry.lr_mult, entry.decay_mult))
    return runs


def pieces(runs: Sequence[Run], start: int, stop: int, piece_count: int = PIECE_COUNT) -> Iterator[tuple[int, slice]]:
    """Yield the part of each run within ``start`` to ``stop``, cut into pieces of at most ``piece_count`` values, with the number
    of the run.
    """
    for index, run in enumerate(runs):
        low, high = max(run.start, start), min(run.stop, stop)
        for begin in range(low, high, piece_count):
            yield index, slice(begin, min(begin + piece_count, high))


def l2_norm(flat: Any, xp: Any, piece_count: int = PIECE_COUNT) -> float:
    """Return the L2 norm of a flat array; the squares of each piece are summed in its dtype, the pieces in double."""
    total = 0.0
    for begin in range(0, flat.shape[0], piece_count):
        piece = flat[begin : begin + piece_count]
        total += float(xp.dot(piece, piece))
    return math.sqrt(total) if total >= 0 else math.nan


def regularize_l2(data: Any, diff: Any, scratch: Any, decay: float, xp: Any) -> None:
    """diff += decay * data: the gradient of decay / 2 * ||data||^2. ``scratch`` is an array of their shape to write in."""
    xp.multiply(data, decay, out=scratch)
    xp.add(diff, scratch, out=diff)


def regularize_l1(data: Any, diff: Any, scratch: Any, decay: float, xp: Any) -> None:
    """diff += decay * sign(data): the gradient of decay * |data|, 0 where data is 0."""
    xp.sign(data, out=scratch)
    xp.multiply(scratch, decay, out=scratch)
    xp.add(diff, scratch, out=diff)


def add_in_order(parts: Sequence[Any], scratch: Any, out: Any, xp: Any) -> None:
    """out = ((parts[0] + parts[1]) + parts[2]) + ...; ``out`` may be one of them, ``scratch`` is an array to write in."""
    if len(parts) == 1:
        out[...] = parts[0]
        return
    total = parts[0]
    for part in parts[1:-1]:
        xp.add(total, part, out=scratch)
        total = scratch
    xp.add(total, parts[-1], out=out)
