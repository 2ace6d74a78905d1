"""Random numbers that do not depend on the number of ranks."""

from __future__ import annotations

from typing import Any

from paratrain.layers.base import Layer
from paratrain.random import hash_key, uniform_rows

__all__ = ["draw_uniform"]


def draw_uniform(layer: Layer, purpose: str, out: Any) -> None:
    """Fill ``out`` (rows, ...), an array of the backend, with this step's numbers in [0, 1) for the layer's batch.

    Value j of row i is number ((i size + rank) inner + j) of the stream named by (seed, purpose, layer, iteration, pass
    of iter_size): row i of this rank is row i size + rank of the effective batch, so that any number of ranks draws the
    same numbers for the same samples.
    """
    context, clock = layer.context, layer.context.clock
    key = hash_key(context.seed, purpose, layer.name, clock.iteration, clock.sub_iteration)
    row_count = out.shape[0] if out.shape else 1
    if out.size:
        by_row = out.reshape(row_count, -1)
        rows = range(context.rank, context.rank + row_count * context.size, context.size)
        uniform_rows(key, rows, by_row.shape[1], by_row, layer.xp)
