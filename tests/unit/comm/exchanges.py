"""Exchanges of every kind over any ranks, for the tests here and for those under mpirun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from paratrain.comm import Communicator
from paratrain.comm.allreduce import Allreduce
from paratrain.comm.communicator import Array
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.flags import Flags
from paratrain.comm.message_ring import MessageRing
from paratrain.comm.message_sharded import MessageSharded
from paratrain.comm.message_tree import MessageTree
from paratrain.comm.progress import Progress, Work
from paratrain.comm.shared_memory import share
from paratrain.comm.shared_sharded import SharedSharded
from paratrain.comm.shared_tree import SharedTree
from paratrain.comm.two_level import TwoLevel
from paratrain.topology.planner import binomial
from paratrain.topology.tree import Tree

MESSAGES = ("tree", "sharded", "ring")
SHARED = ("shared tree", "shared sharded")
TWO_LEVELS = ("tree over nodes", "two levels, tree", "two levels, sharded", "two levels, ring")


def slices_of(count: int, step: int) -> list[Part]:
    """Cut `count` elements from their end to their start, as backward finishes them."""
    return [(start, min(start + step, count)) for start in range(0, count, step)][::-1]


def make_exchange(
    kind: str,
    communicator: Communicator,
    count: int,
    step: int,
    dtype: str = "f4",
    sent: str = "float32",
    *,
    roots: int | None = None,
    tree: Tree | None = None,
) -> Exchange:
    """Gradients are sent as `sent`, where any are. `roots` is for "sharded", `tree` (else a binomial one) for trees."""
    tree = binomial(communicator.size) if tree is None else tree
    slices, scale = slices_of(count, step), 1.0 / communicator.size
    if kind in (*MESSAGES, "mpi"):
        arrays = FlatArrays(np.zeros(count, dtype), np.zeros(count, dtype))
        if kind == "tree":
            return MessageTree(communicator, arrays, slices, scale, tree=tree, gradient_dtype=sent)
        if kind == "mpi":
            return Allreduce(communicator, arrays, slices, scale)
        if kind == "sharded":
            return MessageSharded(communicator, arrays, slices, scale, owner_count=roots, gradient_dtype=sent)
        return MessageRing(communicator, arrays, slices, scale, gradient_dtype=sent)
    shared = share(communicator, [count if communicator.local_rank == 0 else 0, count], dtype)
    counters = share(communicator, [Flags.length(len(slices))], np.int64)
    assert not isinstance(shared, str)
    assert not isinstance(counters, str)
    data, diffs = shared
    arrays = FlatArrays(data[0], diffs[communicator.local_rank], tuple(diffs))
    flags = Flags(counters[0], communicator.local_rank)
    if kind in ("shared tree", "tree over nodes"):
        return SharedTree(communicator, arrays, slices, scale, tree=tree, flags=flags, gradient_dtype=sent)
    if kind == "shared sharded":
        pieces = None if roots is None else [1] * roots
        return SharedSharded(communicator, arrays, slices, scale, flags=flags, pieces=pieces)

    def outer(parts: Sequence[Part], ranks: Sequence[int], root_count: int) -> Exchange:
        if kind == "two levels, tree":
            over_nodes = binomial(len(ranks))
            return MessageTree(communicator, arrays, parts, scale, tree=over_nodes, ranks=ranks, gradient_dtype=sent)
        if kind == "two levels, ring":
            return MessageRing(communicator, arrays, parts, scale, ranks=ranks, gradient_dtype=sent)
        return MessageSharded(
            communicator, arrays, parts, scale, ranks=ranks, owner_count=root_count, gradient_dtype=sent
        )

    return TwoLevel(communicator, arrays, slices, scale, flags=flags, make_outer=outer, roots=roots)


def run_step(exchange: Exchange, gradient: Array, limit: int = 4) -> Array:
    """One step whose update is: parameters += gradient. Returns a copy of the parameters."""
    arrays = exchange.arrays
    arrays.diff[...] = gradient
    progress = Progress(exchange.communicator, limit)

    def work(index: int) -> Work:
        yield from exchange.sum(index)
        start, stop = exchange.owned(index)
        arrays.data[start:stop] += arrays.diff[start:stop]
        yield from exchange.spread(index)

    for index in range(len(exchange.slices)):
        progress.add(work(index))
    progress.finish("a step of a test")
    return arrays.data.copy()


def counts_for(size: int) -> Iterator[int]:
    """Lengths around the count of ranks, and some that make many slices."""
    yield from sorted({0, 1, size - 1, size, size + 1, 1000, 5003})
