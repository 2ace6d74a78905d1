"""Embed: a learned vector for each of a set of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.indices import add_rows, read_indices, take_rows
from paratrain.layers.learnable import add_learnable_blob
from paratrain.proto import LayerParameter

__all__ = ["EmbedLayer"]


@register_layer("Embed")
class EmbedLayer(Layer):
    """y = W[x] + b: the row of the weights that each value of the bottom names.

    Bottom (samples ...), whole numbers from 0 to ``input_dim`` - 1; top (samples ..., num_output). Blobs: weights
    (input_dim, num_output) and, unless ``bias_term`` is false, bias (num_output,). Gradients: dW[k] = sum of the dy of
    all samples whose value is k; db = sum of dy; the bottom has none.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._sorted = Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        embed = self.parameter.embed_param
        for name, value in (("num_output", embed.num_output), ("input_dim", embed.input_dim)):
            if value < 1:
                raise self.error(f"embed_param.{name} must be given and be at least 1")
        self._rows, self._outputs = embed.input_dim, embed.num_output
        add_learnable_blob(self, (self._rows, self._outputs), bottom[0].dtype, embed.weight_filler)
        if embed.bias_term:
            add_learnable_blob(self, (self._outputs,), bottom[0].dtype, embed.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        top[0].reshape(*bottom[0].shape, self._outputs)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        y = self.write(top[0]).reshape(-1, self._outputs)
        take_rows(self, self.read(self.blobs[0]), self._read_rows(bottom[0]), y)
        if len(self.blobs) > 1:
            y += self.read(self.blobs[1])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            raise self.error(f"{self.bottom_name(0)} names rows and has no gradient; give propagate_down: false")
        dy = self.read_diff(top[0]).reshape(-1, self._outputs)
        if self.param_propagate_down[0]:
            add_rows(self, self.write_diff(self.blobs[0]), self._read_rows(bottom[0]), dy, self._sorted)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            bias_diff = self.write_diff(self.blobs[1])
            bias_diff += dy.sum(axis=0)

    def _read_rows(self, bottom: Blob) -> npt.NDArray[np.int64]:
        return read_indices(self, bottom, 0, self._rows, "rows of the weights (input_dim)")
