"""The GPUs of all ranks of a run: who has which, who shares one, and which are left idle."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.comm.communicator import Communicator
from paratrain.launch.device import Computing
from paratrain.topology.machine import Gpu, gpu_list
from paratrain.topology.number_ranges import format_ranges

__all__ = ["RankGpus"]

logger = logging.getLogger(__name__)

_MOST_LINES = 64  # in which the log names the GPU of each rank


@dataclass(frozen=True)
class RankGpus:
    """What every rank computes on, in the order of the ranks; the same on all ranks."""

    places: tuple[Computing, ...]
    node_of_rank: tuple[int, ...]

    @classmethod
    def gather(cls, communicator: Communicator, own: Computing) -> RankGpus:
        """All ranks call it."""
        return cls(tuple(communicator.allgather_objects(own)), communicator.node_of_rank)

    @property
    def is_on_gpus(self) -> bool:
        """Whether all ranks compute on GPUs."""
        return all(place.gpu is not None for place in self.places)

    @property
    def ranks_of_gpu(self) -> dict[tuple[int, str], list[int]]:
        """The ranks of each GPU, which is named by its node and its PCI bus id with its UUID."""
        found: dict[tuple[int, str], list[int]] = defaultdict(list)
        for rank, place in enumerate(self.places):
            if place.gpu is not None:
                found[self.node_of_rank[rank], f"{place.gpu.bus_id} {place.gpu.uuid}"].append(rank)
        return dict(found)

    def log(self, listed: str | None) -> None:
        """On one rank: log the GPU of each rank, and warn of those that are shared or left idle. ``listed`` is what ``-gpu``
        says.
        """
        nodes = len(set(self.node_of_rank))
        for rank, place in enumerate(self.places[:_MOST_LINES]):
            where = f", node {self.node_of_rank[rank]}" if nodes > 1 else ""
            logger.info("rank %d -> %s%s", rank, place.description, where)
        if len(self.places) > _MOST_LINES:
            logger.info("... and so on for the other ranks, up to %d", len(self.places) - 1)
        shared = [ranks for ranks in self.ranks_of_gpu.values() if len(ranks) > 1]
        if shared:
            first = shared[0]
            more = f", and so it is with {gpu_count(len(shared) - 1)} more" if len(shared) > 1 else ""
            logger.warning(
                "ranks %s share %s%s: they take turns on it, and its memory has to do for all; one rank for each GPU is "
                "faster, and NCCL wants it so",
                format_ranges(first), self.places[first[0]].description, more,
            )  # fmt: skip
        if listed is not None and (idle := self._idle()):
            logger.warning(
                "-gpu %s lists %s, and node 0 has fewer ranks, so that %s; start as many ranks on each node, or leave the "
                "launcher out",
                listed, gpu_list(self.places[0].chosen), _stay_idle(idle),
            )  # fmt: skip

    def of_node(self, node: int) -> list[Gpu]:
        """The GPUs of a node's ranks, in their order."""
        found = [place.gpu for rank, place in enumerate(self.places) if self.node_of_rank[rank] == node]
        return [gpu for gpu in found if gpu is not None]

    def check(self) -> str:
        """Why these ranks cannot train together; empty where they can."""
        on_cpu = [rank for rank, place in enumerate(self.places) if place.gpu is None]
        if not on_cpu or len(on_cpu) == len(self.places):
            return ""
        on_gpu = next(rank for rank, place in enumerate(self.places) if place.gpu is not None)
        return (
            f"rank {on_gpu} computes on {self.places[on_gpu].description}, and rank {on_cpu[0]} on the CPU "
            f"({self.places[on_cpu[0]].reason}): all ranks must compute on the same kind; use --cpu for all, or nodes with GPUs"
        )

    def _idle(self) -> list[int]:
        used = {place.gpu.index for rank, place in enumerate(self.places) if place.gpu and self.node_of_rank[rank] == 0}
        return [index for index in self.places[0].chosen if index not in used]


def gpu_count(count: int) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _stay_idle(indices: Sequence[int]) -> str:
    return f"GPU {indices[0]} stays idle" if len(indices) == 1 else f"GPUs {format_ranges(indices)} stay idle"
