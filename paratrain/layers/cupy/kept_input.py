"""What a layer that works in place keeps of its bottom."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.blob import SyncedMemory
from paratrain.layers.cupy.base import CupyLayer

__all__ = ["KeptInput"]


class KeptInput:
    """The values that a layer writes over, from forward to backward, which may want them in another form."""

    def __init__(self, layer: CupyLayer) -> None:
        self._layer: CupyLayer = weakref.proxy(layer)  # it has this: no cycle
        self._memory = SyncedMemory(0)

    def write(self, form: Form) -> Any:
        """Return the flat array, in ``form``, into which forward is to write its bottom."""
        if self._memory.count < form.count:
            self._memory = SyncedMemory(form.count, np.float32)
        return self._layer.forms.write(self._memory, form)

    def read(self, form: Form) -> Any:
        """Return what was written, in ``form``."""
        return self._layer.copies.read(self._memory, form, "kept")
