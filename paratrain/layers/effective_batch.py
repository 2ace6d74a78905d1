"""Random numbers that do not depend on the number of ranks."""

from __future__ import annotations

from typing import Any

from paratrain.layers.base import Layer
from paratrain.random import hash_key

__all__ = ["draw_uniform", "rows_of_rank", "step_key"]


def draw_uniform(layer: Layer, purpose: str, out: Any) -> None:
    """Fill ``out`` (rows, ...), an array of the backend, with this step's numbers in [0, 1) for the layer's batch.

    Value j of row i is number ((i size + rank) inner + j) of the stream named by (seed, purpose, layer, iteration, pass
    of iter_size): row i of this rank is row i size + rank of the effective batch, so that any number of ranks draws the
    same numbers for the same samples.
    """
    row_count = out.shape[0] if out.shape else 1
    if out.size:
        layer.backend.uniform_rows(step_key(layer, purpose), rows_of_rank(layer, row_count), out.reshape(row_count, -1))


def step_key(layer: Layer, purpose: str) -> int:
    """Return the key of the stream of this step's numbers, see :func:`draw_uniform`."""
    context, clock = layer.context, layer.context.clock
    return hash_key(context.seed, purpose, layer.name, clock.iteration, clock.sub_iteration)


def rows_of_rank(layer: Layer, row_count: int) -> range:
    """Return the rows of the effective batch that are this rank's, of whose batch there are ``row_count``."""
    rank, size = layer.context.rank, layer.context.size
    return range(rank, rank + row_count * size, size)
