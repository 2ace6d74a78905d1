"""Dropout, with masks that do not depend on the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.effective_batch import draw_uniform
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import TRAIN, LayerParameter

__all__ = ["DropoutLayer"]


@register_layer("Dropout")
class DropoutLayer(NeuronLayer):
    """In TRAIN each value is dropped with probability r = ``dropout_ratio``: y = m x, dx = m dy, m = 0 or 1 / (1 - r).

    In TEST y = x. With ``scale_train: false`` (of some forks) m is 0 or 1 and TEST multiplies by 1 - r instead.

    Value j of row i is dropped where number ((i size + rank) inner + j) of the stream named by (seed, layer, iteration,
    pass of iter_size) is below r: row i of this rank is row i size + rank of the effective batch, so that any number of
    ranks draws the same masks for the same samples.
    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        dropout = parameter.dropout_param
        ratio = dropout.dropout_ratio
        if not 0 <= ratio < 1:
            raise self.error(f"dropout_ratio is {ratio:g}; it must be at least 0 and below 1")
        if dropout.sample_weights_test:
            raise self.error("sample_weights_test, a field of SegNet's Caffe, is not supported; remove it")
        self._ratio = ratio
        keep = 1.0 - ratio
        self._drops = context.phase == TRAIN
        self._scale = (1.0 / keep if self._drops else 1.0) if dropout.scale_train else (1.0 if self._drops else keep)
        self._mask = Buffer(self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]), self.write(top[0])
        if self._drops:
            self.xp.multiply(x, self._draw_mask(x), out=y)
        elif self._scale != 1 or bottom[0] is not top[0]:
            self.xp.multiply(x, self._scale, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        top_diff, bottom_diff = self.read_diff(top[0]), self.write_diff(bottom[0])
        if self._drops:
            self.xp.multiply(top_diff, self._mask.get(top_diff.shape, top_diff.dtype), out=bottom_diff)
        elif self._scale != 1 or bottom[0] is not top[0]:
            self.xp.multiply(top_diff, self._scale, out=bottom_diff)

    def _draw_mask(self, x: Any) -> Any:
        """Return this step's factors, 0 or the scale; backward uses them again."""
        mask = self._mask.get(x.shape, x.dtype) if self.needs_backward else self.xp.empty(x.shape, x.dtype)
        draw_uniform(self, "dropout", mask)
        self.xp.greater_equal(mask, self._ratio, out=mask)
        self.xp.multiply(mask, self._scale, out=mask)
        return mask
