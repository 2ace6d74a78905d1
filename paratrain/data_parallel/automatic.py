"""Which exchange trains fastest, as far as the cost model knows, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from paratrain.comm.choose import AUTO, EXCHANGES, uses_shared_memory
from paratrain.comm.communicator import Communicator
from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.training_step import STEP_EXCHANGES, StepPrediction, StepWork, predict_step
from paratrain.topology.hosts import RankPlace, local_place
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.tree import Tree
from paratrain.topology.words import duration

__all__ = ["Choice", "best_of", "choose_exchange", "cluster_of_ranks", "node_of_figures", "possible_exchanges"]

_EQUAL_DIGITS = 9  # times that agree to so many digits are equal, and the first of EXCHANGES wins


@dataclass(frozen=True)
class Choice:
    """The exchange that ranks train with, and what the cost model predicts; the same on all ranks.

    `predictions` are those of the exchanges that were compared, the fastest first; of a `name` that was given, its own
    alone, or none where the cost model does not know it. `reason` says why others were not compared, if there is one.
    """

    name: str
    predictions: tuple[StepPrediction, ...] = ()
    is_automatic: bool = False
    reason: str = ""
    tree: Tree | None = None
    """The tree of the exchange, where it is another than the one that joins the ranks: between GPUs it follows their links."""

    @property
    def predicted_s(self) -> float | None:
        """The predicted seconds of a step's exchange and update; None where nothing is predicted."""
        return next((one.total_s for one in self.predictions if one.exchange == self.name), None)

    def describe(self) -> str:
        """``sharded, predicted to take 3.1 ms a step, update included; tree 5 ms, ring 7.2 ms``."""
        text = self.name
        if self.predicted_s is not None:
            text += f", predicted to take {duration(self.predicted_s)} a step, update included"
        others = [f"{one.exchange} {duration(one.total_s)}" for one in self.predictions if one.exchange != self.name]
        return "; ".join(part for part in (text, ", ".join(others), self.reason) if part)


def possible_exchanges(
    communicator: Communicator, *, shows_updates: bool = False, shares_parameters: bool = True
) -> tuple[tuple[str, ...], str]:
    """The exchanges that these ranks can train with, in the order of EXCHANGES, and why others cannot be taken.

    `shows_updates` (debug_info) needs all updates on the root; where ranks do not share parameters, a script may change
    those of the root, which a tree brings to the others.
    """
    if shows_updates:
        return ("tree",), "debug_info shows the updates of one rank, the root"
    if not shares_parameters:
        return ("tree",), "parameters are each rank's own, and the root's count"
    if not communicator.has_own_sums:
        return tuple(name for name in EXCHANGES if name != "mpi"), ""
    return EXCHANGES, ""


def choose_exchange(
    wanted: str,
    possible: Sequence[str],
    communicator: Communicator,
    tree: Tree,
    work_of: Callable[[str], StepWork],
    *,
    shares_memory: bool = True,
    machine: Machine | None = None,
    reason: str = "",
) -> Choice:
    """The exchange `wanted`, or where that is AUTO the one of `possible` with the least predicted time. All ranks call it.

    Rank 0 chooses for all. The choice follows from the places of the ranks, the tree, the work (which may differ with the
    exchange, as slices do) and the figures of `machine`, which rank 0 gives, or of the catalogue; never from a measurement,
    so that the same job chooses the same again. `shares_memory` says whether ranks of a node can have arrays in common.
    """
    places = communicator.gather_objects(local_place())
    choice: Choice | None = None
    if places is not None:
        cluster = cluster_of_ranks(communicator.node_of_rank, places, machine)
        compared = [name for name in (possible if wanted == AUTO else [wanted]) if name in STEP_EXCHANGES]
        members = _member_of_rank(communicator.node_of_rank)
        predictions = [
            predict_step(
                name,
                cluster,
                tree.renumbered(members),
                work_of(name),
                shares_memory=shares_memory and uses_shared_memory(name, communicator),
            )
            for name in compared
        ]
        choice = best_of(wanted, predictions, reason)
    found: Choice = communicator.broadcast_object(choice)
    return found


def best_of(wanted: str, predictions: Sequence[StepPrediction], reason: str = "") -> Choice:
    """The exchange `wanted`, or where that is AUTO the first of the fastest, with the predictions in their order."""
    ordered = sorted(predictions, key=lambda one: float(f"{one.total_s:.{_EQUAL_DIGITS}e}"))
    name = ordered[0].exchange if wanted == AUTO else wanted
    return Choice(name, tuple(ordered), wanted == AUTO, reason if wanted == AUTO else "")


def cluster_of_ranks(
    node_of_rank: Sequence[int], places: Sequence[RankPlace], machine: Machine | None = None
) -> Cluster:
    """The nodes of a run with their ranks; members are the ranks node by node.

    `machine` gives figures that are better than the catalogue's: of the network, and, if its members are as many CPU ranks
    as a node has, of their links.
    """
    ranks: dict[int, list[int]] = {}
    for rank, node in enumerate(node_of_rank):
        ranks.setdefault(node, []).append(rank)
    machines: list[Machine] = []
    for of_node in ranks.values():
        members = tuple(CpuRank(local, places[rank].numa_node) for local, rank in enumerate(of_node))
        found = Machine(source="the ranks of this run", cpu_ranks=members)
        if machine is not None:
            found = replace(found, network=machine.network, network_cards=machine.network_cards)
            if not machine.gpus and len(machine.cpu_ranks) == len(members):
                found = replace(found, measured=machine.measured)
        machines.append(machines[-1] if machines and machines[-1] == found else found)
    return Cluster(tuple(machines))


def node_of_figures(machine: Machine, order: Sequence[int]) -> Machine:
    """The machine with its CPU ranks numbered from 0 in this order of their places, as ranks of a run are; GPUs as they are."""
    if machine.gpus:
        return machine
    number = {machine.indices[place]: new for new, place in enumerate(order)}
    measured = {}
    for (one, other), figure in machine.measured.items():
        low, high = sorted((number[one], number[other]))
        measured[low, high] = figure
    ranks = tuple(replace(machine.cpu_ranks[place], index=new) for new, place in enumerate(order))
    return replace(machine, cpu_ranks=ranks, measured=measured, links=(), vetoes={})


def _member_of_rank(node_of_rank: Sequence[int]) -> list[int]:
    """For each rank its number where ranks are counted node by node."""
    order = sorted(range(len(node_of_rank)), key=lambda rank: (node_of_rank[rank], rank))
    member_of = {rank: member for member, rank in enumerate(order)}
    return [member_of[rank] for rank in range(len(node_of_rank))]
