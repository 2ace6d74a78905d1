"""Layers that work value by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

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

    def forward_scratch(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """Return working memory for ``forward``: ``scratch`` where backward uses it too, else memory for this call alone."""
        return self.scratch.get(shape, dtype) if self.needs_backward else self.xp.empty(shape, dtype)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape_like(bottom[0])
