"""Which rank drives which GPU: they are dealt so that the root of the planned tree is the lowest rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.errors import DeviceError


@dataclass(frozen=True)
class Deal:
    """The GPUs of a node's ranks: `gpu_of_rank[local_rank]` is an index of a GPU, `idle` are the GPUs that no rank got."""

    gpu_of_rank: tuple[int, ...]
    idle: tuple[int, ...] = ()

    @property
    def shared(self) -> tuple[int, ...]:
        """The GPUs that more than one rank drives, sorted."""
        return tuple(sorted({gpu for gpu in self.gpu_of_rank if self.gpu_of_rank.count(gpu) > 1}))


def deal_gpus(rank_order: Sequence[int], local_size: int) -> Deal:
    """Deal the GPUs with the indices `rank_order`, which is `Plan.rank_order`, to the `local_size` ranks of a node.

    Local rank 0, the lowest rank of its node, gets the root; so the root of the first node's tree is rank 0, and
    `Plan.rank_tree` is the tree over the ranks where there is one for each GPU. With more ranks than GPUs the GPUs go
    round again, with fewer the last ones stay idle. DeviceError if there are ranks but no GPU, or if a GPU is named twice.
    """
    if len(set(rank_order)) != len(rank_order):
        raise DeviceError(f"dealing GPUs: expected each GPU once, found {list(rank_order)}")
    if not rank_order and local_size:
        raise DeviceError(f"dealing GPUs: {local_size} ranks and no GPU; use --cpu")
    gpus = tuple(rank_order[local_rank % len(rank_order)] for local_rank in range(local_size))
    return Deal(gpus, tuple(rank_order[local_size:]))
