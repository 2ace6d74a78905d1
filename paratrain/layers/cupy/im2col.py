"""Im2col on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.im2col import CupyIm2col
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.im2col import Im2colLayer
from paratrain.proto import LayerParameter

__all__ = ["CupyIm2colLayer"]


@register_layer("Im2col", backend="cupy")
class CupyIm2colLayer(CupyLayer, Im2colLayer):
    """Columns of the type that the bottom has, in plain order."""

    is_capturable = True

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._built: dict[tuple[ConvolutionGeometry | None, np.dtype[Any]], CupyIm2col] = {}

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        below, above = bottom[0].data_memory, top[0].data_memory
        self._kind = (
            self.found(bottom[0]).dtype if self.may_arrange(above, bottom[0].diff_memory) else np.dtype(np.float32)
        )
        x = self.copies.read(below, Form.of(bottom[0].shape, self._kind))
        self._windows().forward(x, self.forms.write(above, Form.of(top[0].shape, self._kind)))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            dy = self.copies.read(top[0].diff_memory, Form.of(top[0].shape, self._kind), "diff")
            dx = self.forms.write(bottom[0].diff_memory, Form.of(bottom[0].shape, self._kind))
            self._windows().backward(dy, dx)

    def _windows(self) -> CupyIm2col:
        key = self._geometry, self._kind
        if key not in self._built:
            assert self._geometry is not None
            self._built = {key: CupyIm2col(self.forms, self._geometry, self._kind)}
        return self._built[key]
