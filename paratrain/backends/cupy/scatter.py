"""Values that go to places, several perhaps to the same one, so that two runs give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain import gpu
from paratrain.backends.cupy.forms import Forms

__all__ = ["add_at", "put_at"]


def add_at(forms: Forms, target: Any, places: Any, values: Any) -> None:
    """target[places[i]] += values[i], where a place is named several times in the order of i; all are flat arrays on the GPU.

    CuPy's own way adds by atomics, in whatever order threads come. Here the places are sorted, and one thread adds for each.
    """
    order = gpu.library().argsort(places, kind="stable")
    forms.kernels("scatter", target.dtype).launch("add_runs", places.size, places[order], order, values, target)


def put_at(forms: Forms, target: Any, places: Any, values: Any) -> None:
    """target[places[i]] = values[i], the last of those that name a place; all are flat arrays on the GPU."""
    last = gpu.library().full(target.size, -1, np.int32)
    kernels = forms.kernels("scatter", target.dtype)
    kernels.launch("note_last", places.size, places, last)
    kernels.launch("put_noted", target.size, last, values, target)
