"""Accuracy on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.layers.accuracy import AccuracyLayer
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.cupy.loss import VALUE, CupyLabelLayer
from paratrain.proto import LayerParameter

__all__ = ["CupyAccuracyLayer"]

_MOST_BLOCKS = 4096
_MOST_THREADS = 256


@register_layer("Accuracy", backend="cupy")
class CupyAccuracyLayer(CupyLabelLayer, AccuracyLayer):
    """Accuracy by one kernel, and by a second one for the shares of the classes."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._right = Buffer(self.xp)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self._axis = bottom[0].canonical_axis(self.parameter.accuracy_param.axis)

    def label_sizes(self) -> tuple[int, int]:
        return self._sizes[1:]

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = bottom[0].count > 0
        if not self.is_capturable:
            super().forward(bottom, top)
            return
        outer, classes, inner = self._sizes
        positions, form = outer * inner, self.found(bottom[0])
        form = form if self._axis == 1 else form.plain_order()
        scores, labels = self.copies.read(bottom[0].data_memory, form), self.labels(bottom)
        right = self._right.get((positions,), np.float32)
        module = self.kernels("accuracy", form.dtype)
        module.launch_blocks(
            "accuracy", min(positions, _MOST_BLOCKS), _threads(classes), positions, scores, classes,
            1 if form.channels_last else inner, *labels, self.fault, self._top_k, right,
            self.forms.write(top[0].data_memory, VALUE), self.sums.ticket
        )  # fmt: skip
        if len(top) > 1:
            shares = self.forms.write(top[1].data_memory, Form.of((classes,), np.float32))
            blocks, threads = min(classes, _MOST_BLOCKS), _threads(positions)
            module.launch_blocks("accuracy_of_classes", blocks, threads, positions, classes, labels[0], right, shares)


def _threads(count: int) -> int:
    """How many threads look at ``count`` values: a power of two."""
    return min(max(1 << (count - 1).bit_length(), 32), _MOST_THREADS)
