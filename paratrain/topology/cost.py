"""The predicted time of one exchange: a whole buffer up the tree, then down again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.topology.link_figures import LinkFigure, link_figure, uncertainty
from paratrain.topology.machine import LinkKind, Machine
from paratrain.topology.tree import Tree

NEAR = (LinkKind.PIX, LinkKind.PXB)
FAR = (LinkKind.PHB, LinkKind.NODE, LinkKind.SYS, LinkKind.UNKNOWN)


@dataclass(frozen=True)
class Prediction:
    """The predicted seconds for reducing `byte_count` bytes to the root and broadcasting them again.

    `origin` says where the link figures come from ("default" or "measured"), `uncertainty` how far the times may be
    off.
    """

    method: str
    byte_count: int
    reduce_s: float
    broadcast_s: float
    origin: str
    uncertainty: float


def cost_matrix(machine: Machine, byte_count: int) -> list[list[float]]:
    """The seconds for moving `byte_count` bytes over each pair's link when idle, in the order of `machine.gpus`."""
    gpus = machine.gpus
    return [
        [0.0 if a == b else figure_between(machine, i, j).time_s(byte_count) for j, b in enumerate(gpus)]
        for i, a in enumerate(gpus)
    ]


def figure_between(machine: Machine, one: int, other: int) -> LinkFigure:
    """The figure of the link between the GPUs at two places in `machine.gpus`."""
    a, b = machine.gpus[one], machine.gpus[other]
    return link_figure(machine.link(a.index, b.index), a, b)


def steps(tree: Tree) -> list[list[tuple[int, int]]]:
    """The (parent, child) edges in the steps in which a reduction can use them.

    A parent adds its children one after another, in their order, and each only when the child has all of its own.
    """
    ready = [0] * tree.size  # the step in which a member has added what it has so far
    at: dict[int, list[tuple[int, int]]] = {}
    for member in reversed(list(tree.top_down())):
        for child in tree.children[member]:
            ready[member] = max(ready[member], ready[child]) + 1
            at.setdefault(ready[member], []).append((member, child))
    return [at[step] for step in sorted(at)]


def predict_tree(machine: Machine, tree: Tree, byte_count: int, method: str = "tree") -> Prediction:
    """Predict one exchange of whole buffers over a tree whose members are the places in `machine.gpus`.

    reduce = sum over steps of the max over the step's edges e of c_e (latency_e + bytes / bandwidth_e), and the
    broadcast takes as long, backwards. c_e counts the edges of the same step that load the same shared segment as e:
    the uplink of an island (GPUs joined by PIX and PXB) for a link that leaves it, and the link between the sockets
    for SYS. Adding is taken to cost nothing.
    """
    islands = _islands(machine)
    reduce_s = 0.0
    for edges in steps(tree):
        loads = {edge: _segments(machine, islands, edge) for edge in edges}
        flows = Counter(segment for segments in loads.values() for segment in segments)
        reduce_s += max(
            max((flows[segment] for segment in loads[edge]), default=1)
            * figure_between(machine, *edge).time_s(byte_count)
            for edge in edges
        )
    return Prediction(method, byte_count, reduce_s, reduce_s, "default", uncertainty())


def _islands(machine: Machine) -> Sequence[int]:
    """For each GPU the number of its island: the GPUs that PIX and PXB links join."""
    island = list(range(len(machine.gpus)))
    for link in machine.links:
        if link.link_class.kind in NEAR:
            a, b = (island[machine.indices.index(end)] for end in (link.a, link.b))
            island = [min(a, b) if number in (a, b) else number for number in island]
    return island


def _segments(machine: Machine, islands: Sequence[int], edge: tuple[int, int]) -> list[str]:
    """The shared segments that a flow over this edge loads."""
    kind = machine.link_class(*(machine.gpus[place].index for place in edge)).kind
    if kind not in FAR:
        return []
    uplinks = sorted({f"uplink {islands[place]}" for place in edge})
    return uplinks + (["sockets"] if kind in (LinkKind.SYS, LinkKind.UNKNOWN) else [])
