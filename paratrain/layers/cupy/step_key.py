"""The key of a layer's random numbers, on the GPU."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.effective_batch import step_key

__all__ = ["StepKey"]


class StepKey:
    """64 bits that name the numbers a layer draws in the current step, for kernels that run again as part of a recording."""

    def __init__(self, layer: CupyLayer, purpose: str) -> None:
        self._layer: CupyLayer = weakref.proxy(layer)  # it has this: no cycle
        self._purpose = purpose
        self.array: Any = layer.forms.device.zeros(1, np.uint64)

    def write(self) -> None:
        """Put the key of this step there, unless the work given to the GPU is being recorded: it would be the same each time."""
        if not self._layer.gpu.stream.is_capturing():
            key = np.uint64(step_key(self._layer, self._purpose))
            self._layer.kernels("random").launch_blocks("write_key", 1, 1, self.array, key)
