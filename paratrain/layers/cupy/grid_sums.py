"""Working memory of kernels that sum over a whole grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Forms

__all__ = ["GridSums"]


class GridSums:
    """The parts that blocks leave, and the ticket by which they find out which is the last: see kernels/blocks.cuh.

    For one kernel at a time.
    """

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._ticket: Any = None
        self._parts: Any = None

    @property
    def ticket(self) -> Any:
        """An array of one 0, which kernels leave so."""
        if self._ticket is None:
            self._ticket = self._forms.device.zeros(1, np.uint32)
        return self._ticket

    def parts(self, count: int) -> Any:
        """Return an array of at least ``count`` float32 values, which are not set."""
        if self._parts is None or self._parts.size < count:
            self._parts = self._forms.device.empty(count, np.float32)
        return self._parts
