"""Layers that work value by value."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, LayerContext
from paratrain.layers.buffers import Buffer
from paratrain.proto import LayerParameter

__all__ = ["NeuronLayer"]


class NeuronLayer(Layer):
    """One bottom, one top of the same shape, which may be the same blob (in place)."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.scratch = Buffer(self.xp)
        """Working memory within one call."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape_like(bottom[0])
