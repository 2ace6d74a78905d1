"""Sums of a few numbers per channel over the ranks that a batch is spread over."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import Layer

__all__ = ["RankSums"]


class RankSums:
    """Adds up what a layer knows of its own part of a batch, in float64, by ``context.sum_over_ranks``.

    All ranks must run the layer together, and each call costs a message up and down the tree of ranks.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer: Layer = weakref.proxy(layer)  # it has this: no cycle, so that deleting a net frees its memory
        self._exchanged = Blob((0,), np.float64)

    def add(self, count: int, *sums: Any) -> list[Any]:
        """Return ``count`` and the ``sums``, arrays (C,) of one dtype, each added up over the ranks: the same bits on all."""
        layer, blob, channels = self._layer, self._exchanged, len(sums[0])
        blob.reshape(len(sums) * channels + 1)
        packed = layer.write(blob)
        for index, values in enumerate(sums):
            packed[index * channels : (index + 1) * channels] = values
        packed[-1] = count
        layer.context.sum_over_ranks(blob.data)
        total = int(blob.data[-1])
        added = layer.read(blob)[:-1].astype(sums[0].dtype).reshape(len(sums), channels)
        return [total, *added]
