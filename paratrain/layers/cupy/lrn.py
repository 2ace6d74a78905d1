"""LRN on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.cupy.lrn import CupyLocalResponseNormalization
from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.lrn import LRNLayer

__all__ = ["CupyLRNLayer"]


@register_layer("LRN", backend="cupy")
class CupyLRNLayer(CupyLayer, LRNLayer):
    """Both kinds of LRN, in the form that the bottom comes in."""

    def _make_primitives(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        parameter = self.parameter.lrn_param
        k = 1.0 if self._within else parameter.k
        geometry = LocalResponseGeometry(shape, parameter.local_size, parameter.alpha, parameter.beta, k)
        self._kernels = CupyLocalResponseNormalization(self.forms, geometry, dtype, within_channels=self._within)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        form = self._form = self.writable(self.found(bottom[0]), bottom[0].diff_memory, top[0].data_memory)
        x = self.copies.read(bottom[0].data_memory, form)
        self._kernels.normalize(x, form, self.forms.write(top[0].data_memory, form))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            x = self.copies.read(bottom[0].data_memory, self._form)
            dy = self.copies.read(top[0].diff_memory, self._form, "diff")
            self._kernels.gradient(x, dy, self._form, self.forms.write(bottom[0].diff_memory, self._form))
