"""Which rank drives which GPU: they are dealt so that the root of the planned tree is the lowest rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.errors import DeviceError
from paratrain.topology.tree import Tree


@dataclass(frozen=True)
class Deal:
    """The GPUs of a node's ranks: `gpu_of_rank[local_rank]` is an index of a GPU, `idle` are the GPUs that no rank got."""

    gpu_of_rank: tuple[int, ...]
    idle: tuple[int, ...] = ()

    @property
    def shared(self) -> tuple[int, ...]:
        """The GPUs that more than one rank drives, sorted."""
        return tuple(sorted({gpu for gpu in self.gpu_of_rank if self.gpu_of_rank.count(gpu) > 1}))


def deal_gpus(planned: Sequence[int], local_size: int) -> Deal:
    """Deal the GPUs with the indices `planned`, the planned root first, to the `local_size` ranks of a node.

    Local rank 0, the lowest rank of its node, gets the root; so the root of the first node's tree is rank 0. With more
    ranks than GPUs the GPUs go round again, with fewer the last ones stay idle. DeviceError if there are ranks but no
    GPU, or if a GPU is named twice.
    """
    if len(set(planned)) != len(planned):
        raise DeviceError(f"dealing GPUs: expected each GPU once, found {list(planned)}")
    if not planned and local_size:
        raise DeviceError(f"dealing GPUs: {local_size} ranks and no GPU; use --cpu")
    gpus = tuple(planned[local_rank % len(planned)] for local_rank in range(local_size))
    return Deal(gpus, tuple(planned[local_size:]))


def root_first(tree: Tree, indices: Sequence[int]) -> list[int]:
    """The GPUs of a planned tree, the root first, then level by level, the children of one parent in their order.

    `indices[member]` is the index of the GPU at that place of the tree.
    """
    order = [tree.root]
    for member in order:
        order += tree.children[member]
    return [indices[member] for member in order]


def tree_of_ranks(tree: Tree, indices: Sequence[int], deal: Deal) -> Tree:
    """The planned tree over GPUs as a tree over the local ranks that drive them; rank 0 is its root.

    Expects a rank for every GPU of the tree and no GPU with two ranks: DeviceError otherwise.
    """
    rank_of = {gpu: rank for rank, gpu in enumerate(deal.gpu_of_rank)}
    if sorted(deal.gpu_of_rank) != sorted(indices):
        raise DeviceError(f"the tree joins the GPUs {sorted(indices)}, but the ranks drive {sorted(deal.gpu_of_rank)}")
    edges = [(rank_of[indices[parent]], rank_of[indices[child]]) for parent, child in tree.edges()]
    return Tree.from_edges(tree.size, rank_of[indices[tree.root]], edges)
