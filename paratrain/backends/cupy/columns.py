"""Blobs side by side along an axis: their bytes moved to and from a whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Forms
from paratrain.backends.cupy.packs import PACK_BYTES

__all__ = ["Columns", "exchange_columns"]

_MOST_PARTS = 8  # of a launch
_UNITS = (PACK_BYTES, 8, 4, 2)


class Columns:
    """Parts of a whole, all of them matrices of ``rows`` rows, if one sees their shapes in the order of memory."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], axis: int, *, channels_last: bool) -> None:
        """``shapes`` are the parts', (N, C, *spatial) whatever the order is; they differ in ``axis`` only."""
        place = axis
        if channels_last:
            shapes = [(shape[0], *shape[2:], shape[1]) for shape in shapes]
            place = len(shapes[0]) - 1 if axis == 1 else max(axis - 1, 0)
        self.rows = math.prod(shapes[0][:place])
        self.columns = [math.prod(shape[place:]) for shape in shapes]


def exchange_columns(
    forms: Forms, whole: Any, parts: Sequence[Any | None], columns: Columns, *, to_whole: bool
) -> None:
    """Copy the parts to the whole, or the whole to the parts, of which those that are None are left out. All are flat arrays of
    one dtype.
    """
    item = whole.dtype.itemsize
    arrays = [whole, *(part for part in parts if part is not None)]
    unit = next(
        unit
        for unit in _UNITS
        if all(count * item % unit == 0 for count in columns.columns)
        and all(array.data.ptr % unit == 0 for array in arrays)
    )
    # The kernels move bytes and are compiled once, whatever they mean.
    kernels = forms.kernels("columns", np.float32)
    stops = [0, *itertools.accumulate(count * item // unit for count in columns.columns)]
    for start in range(0, len(parts), _MOST_PARTS):
        given = list(parts[start : start + _MOST_PARTS])
        first, last = stops[start], stops[start + len(given)]
        missing = _MOST_PARTS - len(given)
        ends = [stop - first for stop in stops[start + 1 : start + len(given) + 1]] + [last - first] * missing
        arguments = (whole, stops[-1], first, last - first, to_whole, *given, *([None] * missing), *ends)
        if any(part is not None for part in given):
            kernels.launch(f"exchange_{unit}", columns.rows * (last - first), *arguments)
