"""Indices that a bottom holds: reading them, and taking and adding the rows they name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.layers.base import Layer
from paratrain.layers.buffers import Buffer

__all__ = ["add_rows", "read_indices", "take_rows"]


def read_indices(layer: Layer, bottom: Blob, bottom_index: int, count: int, of_what: str) -> npt.NDArray[np.int64]:
    """Return the values of a bottom as integers, flattened, on the host, where a data layer has put them.

    Raises LayerError that names the layer, the blob and the value where one is not a whole number from 0 to
    ``count`` - 1; ``of_what`` says what is counted: "rows of bottom[0]".
    """
    values: npt.NDArray[Any] = bottom.read_data(None).reshape(-1)
    fine = (values >= 0) & (values < count) & (np.trunc(values) == values)
    if not fine.all():
        position = int(np.argmin(fine))
        raise layer.error(
            f"{layer.bottom_name(bottom_index)}: value {position} is {values[position]:g}; it must be a whole number "
            f"from 0 to {count - 1}, one of the {count} {of_what}"
        )
    return values.astype(np.int64)


def take_rows(layer: Layer, source: Any, rows: npt.NDArray[np.int64], out: Any) -> None:
    """out[i] = source[rows[i]]; ``rows`` lie on the host and are known to be in range, the others where the backend works."""
    if layer.xp is np:  # which, unless told to clip, checks again and works in a copy of ``out``
        np.take(source, rows, axis=0, out=out, mode="clip")
    else:
        layer.xp.take(source, layer.xp.asarray(rows), axis=0, out=out)


def add_rows(layer: Layer, target: Any, rows: npt.NDArray[np.int64], source: Any, working: Buffer) -> None:
    """target[rows[i]] += source[i], also where a row is named several times; ``rows`` as in :func:`take_rows`.

    Sources of one row are added in pairs, then the pairs in pairs ..., so a row that is named n times takes log2(n)
    steps, and the same numbers are added in the same order every time.
    """
    if not rows.size:
        return
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    together = working.get(source.shape, source.dtype)
    take_rows(layer, source, order, together)
    starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    counts = np.diff(np.append(starts, rows.size))
    place, count = np.arange(rows.size) - np.repeat(starts, counts), np.repeat(counts, counts)
    step = 1
    while step < counts.max():
        first = layer.xp.asarray(np.flatnonzero((place % (2 * step) == 0) & (place + step < count)))
        together[first] += together[first + step]
        step *= 2
    target[layer.xp.asarray(rows[starts])] += together[layer.xp.asarray(starts)]
