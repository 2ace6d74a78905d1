"""The predicted time of one exchange over trees: everything up to the root, then down again.

A parent adds its children one after another, in their order, each when the child has all of its own. Up the tree:

    whole:      ready(m) = fold over m's children c, in order, of  t <- max(t, ready(c)) + latency_e + bytes b_e
                reduce = ready(root);  on links all alike: steps (latency + bytes / rate)
    k chunks:   reduce = L(bytes / k) + (k - 1) S(bytes / k)
                L: the time of one chunk alone, as above; S: how long the busiest member or segment needs for a chunk
                best k = sqrt(bytes (dL/dn - dS/dn) / S(0)), no chunk smaller than the trainer's

e is the edge above c, b_e the seconds a byte needs on it: 1 / its rate, or f / capacity of a shared segment that it loads,
with f edges of the same step on that segment, whichever is more. Down the tree is the same backwards, as all links are full
duplex and alike in both directions, so that broadcast = reduce. Adding is taken to cost nothing on GPUs; for CPU ranks
it is part of the link's figure. The forms are the usual ones of the alpha-beta model (Hockney 1994; Thakur, Rabenseifner
and Gropp 2005, "Optimization of Collective Communication Operations in MPICH"); the pipelined tree is the one of
Sanders, Speck and Traeff 2009, "Two-tree algorithms for full bandwidth broadcast, reduction and scan".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paratrain.topology.costs.contention import Fabric, MachineFabric, Segment
from paratrain.topology.link_figures import LinkFigure, figure_of_pair, uncertainty
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree

CHUNK_BYTES = 2**20  # the trainer's exchange cuts buffers into chunks of this size
MOST_CHUNKS = 64  # of a shard
EQUAL = 1e-9  # times that differ by less than this share are equal


@dataclass(frozen=True)
class Prediction:
    """The predicted seconds for summing `byte_count` bytes over all members and handing the result to all again.

    `method` names the way in words. `reduce_s` is the time up the tree (or of the reduce-scatter), `broadcast_s` that
    down (or of the all-gather). `origin` says where the link figures come from ("default", "measured", "file" or
    "mixed"), `uncertainty` how far the times may be off, as a share. `chunk_count` is the count of chunks the buffer is
    cut into so that they follow each other (1: a whole buffer). `best` marks the fastest of those compared.
    """

    method: str
    byte_count: int
    reduce_s: float
    broadcast_s: float
    origin: str
    uncertainty: float
    chunk_count: int = 1
    best: bool = False

    @property
    def total_s(self) -> float:
        """The seconds of the whole exchange."""
        return self.reduce_s + self.broadcast_s


def cost_matrix(machine: Machine, byte_count: int) -> list[list[float]]:
    """The seconds for moving `byte_count` bytes over each pair's link when idle, in the order of `machine.members`."""
    places = range(len(machine.members))
    return [[0.0 if a == b else figure_between(machine, a, b).time_s(byte_count) for b in places] for a in places]


def figure_between(machine: Machine, one: int, other: int) -> LinkFigure:
    """The figure of the link between the members at two places in `machine.members`."""
    return figure_of_pair(machine, machine.members[one], machine.members[other])


def fabric_of(machine: Machine | Fabric) -> Fabric:
    """The fabric of a machine; a fabric as it is."""
    return MachineFabric(machine) if isinstance(machine, Machine) else machine


class TreeClock:
    """The times of one tree over the members of a fabric, for any number of bytes and chunks."""

    def __init__(self, fabric: Fabric, tree: Tree) -> None:
        self.tree = tree
        self.bottom_up = list(tree.top_down())[::-1]
        self.figures = [
            None if parent is None else fabric.figure(parent, member) for member, parent in enumerate(tree.parent)
        ]
        self.latency = [0.0 if figure is None else figure.latency_s for figure in self.figures]
        self.alone = [0.0 if figure is None else 1.0 / figure.bytes_per_s for figure in self.figures]
        self.common = [
            () if parent is None else fabric.common(member, parent) for member, parent in enumerate(tree.parent)
        ]
        self.loads: dict[Segment, int] = {}  # how many edges of the tree load a segment
        for segments in self.common:
            for segment in segments:
                self.loads[segment] = self.loads.get(segment, 0) + 1
        self.per_byte = self._crowded(fabric) if self.loads else self.alone
        self.segment_per_byte = max((count / fabric.capacity(name) for name, count in self.loads.items()), default=0.0)

    def _crowded(self, fabric: Fabric) -> list[float]:
        """The seconds per byte of the edge above each member, with the edges of the same step beside it."""
        step_of = edge_steps(self.tree)
        flows: dict[tuple[int, Segment], int] = {}
        for member, segments in enumerate(self.common):
            for segment in segments:
                flows[step_of[member], segment] = flows.get((step_of[member], segment), 0) + 1
        return [
            max([alone, *(flows[step_of[member], name] / fabric.capacity(name) for name in self.common[member])])
            for member, alone in enumerate(self.alone)
        ]

    def alone_s(self, byte_count: float) -> float:
        """L: the seconds in which `byte_count` bytes reach the root, uncut."""
        return self.reduce_s(byte_count, 1)

    def busiest_s(self, byte_count: float) -> float:
        """S: the seconds for which the busiest member receives, or the busiest shared segment carries, one chunk."""
        latency, alone = self.latency, self.alone
        members = max(
            (sum(latency[child] + byte_count * alone[child] for child in below) for below in self.tree.children),
            default=0.0,
        )
        return max(members, byte_count * self.segment_per_byte)

    def reduce_s(self, byte_count: float, chunk_count: int) -> float:
        """The seconds until all chunks of `byte_count` bytes together have reached the root.

        As the formula above, with the busiest part below each member taken for itself, so that a busy member far
        from the root is not charged twice.
        """
        size = byte_count / chunk_count
        first = [0.0] * self.tree.size  # when a member has added its first chunk
        last = [0.0] * self.tree.size  # and its last one
        for member in self.bottom_up:
            begun = ended = busy = 0.0
            for child in self.tree.children[member]:
                seconds = self.latency[child] + size * self.per_byte[child]
                begun = max(begun, first[child]) + seconds
                ended = max(ended, last[child]) + seconds
                busy += self.latency[child] + size * self.alone[child]
            first[member] = begun
            last[member] = max(ended, begun + (chunk_count - 1) * busy)
        root = self.tree.root
        return max(last[root], first[root] + (chunk_count - 1) * size * self.segment_per_byte)

    def best_chunk_count(self, byte_count: int) -> int:
        """The count of chunks for which the predicted time is least, none smaller than `CHUNK_BYTES`."""
        most = math.ceil(byte_count / CHUNK_BYTES)
        if most < 2 or self.tree.size < 3:
            return 1
        latency = self.busiest_s(0)
        gain = self.alone_s(byte_count) - self.alone_s(0) - (self.busiest_s(byte_count) - latency)
        wanted = math.inf if latency <= 0 else math.sqrt(max(gain, 0.0) / latency)
        below = max(1, min(most, math.floor(min(wanted, most))))
        return min(sorted({1, below, min(most, below + 1)}), key=lambda count: self.reduce_s(byte_count, count))


def edge_steps(tree: Tree) -> list[int]:
    """For each member the step, from 1, in which its parent can add it; 0 for the root.

    A parent adds its children one after another, in their order, and each only when the child has all of its own.
    """
    ready = [0] * tree.size  # the step in which a member has added what it has so far
    step_of = [0] * tree.size
    for member in reversed(list(tree.top_down())):
        for child in tree.children[member]:
            step_of[child] = ready[member] = max(ready[member], ready[child]) + 1
    return step_of


def steps(tree: Tree) -> list[list[tuple[int, int]]]:
    """The (parent, child) edges of each step of `edge_steps`, in the order of the steps."""
    step_of = edge_steps(tree)
    at: dict[int, list[tuple[int, int]]] = {}
    for member in reversed(list(tree.top_down())):
        for child in tree.children[member]:
            at.setdefault(step_of[child], []).append((member, child))
    return [at[step] for step in sorted(at)]


def predict_tree(
    machine: Machine | Fabric, tree: Tree, byte_count: int, method: str = "tree", chunk_count: int | None = None
) -> Prediction:
    """Predict one exchange over a tree whose members are places in `machine.members` (or those of a fabric).

    `chunk_count` None takes the best one; 1 is a whole buffer.
    """
    clock = TreeClock(fabric_of(machine), tree)
    count = clock.best_chunk_count(byte_count) if chunk_count is None else chunk_count
    seconds = clock.reduce_s(byte_count, count)
    return prediction(method, byte_count, seconds, seconds, clock.figures, count)


def prediction(
    method: str,
    byte_count: int,
    reduce_s: float,
    broadcast_s: float,
    used: Iterable[LinkFigure | None],
    chunk_count: int = 1,
) -> Prediction:
    """A `Prediction` that rests on these figures of links."""
    origins = {figure.origin for figure in used if figure is not None} or {"default"}
    origin = origins.pop() if len(origins) == 1 else "mixed"
    return Prediction(method, byte_count, reduce_s, broadcast_s, origin, uncertainty(origin), chunk_count)


def predict_trees(
    machine: Machine | Fabric,
    trees: Sequence[Tree],
    byte_count: int,
    method: str = "trees on shards",
    chunk_count: int | None = None,
) -> Prediction:
    """Predict an exchange over several trees at once, each of which moves an equal shard, in `chunk_count` chunks.

    `chunk_count` None takes the best power of two up to 64, no chunk smaller than `CHUNK_BYTES`. In chunks of size n,

        reduce = B + max over trees r of (L_r(n) - S_r(n))

    with B the longest of chunk_count * S_r(n) and of bytes / capacity of every segment, for all that the trees load on it
    together. It supposes that trees which share a segment use it in turns without waiting for each other.
    """
    fabric = fabric_of(machine)
    shard_bytes = byte_count / len(trees)
    clocks = [TreeClock(fabric, tree) for tree in trees]
    loads: dict[Segment, int] = {}
    for tree in trees:
        for parent, child in tree.edges():
            for segment in fabric.path(child, parent):
                loads[segment] = loads.get(segment, 0) + 1
    carrying = shard_bytes * max((count / fabric.capacity(name) for name, count in loads.items()), default=0.0)

    def seconds(count: int) -> float:
        size = shard_bytes / count
        alone = [(clock.alone_s(size), clock.busiest_s(size)) for clock in clocks]
        return max(carrying, *(count * busy for _, busy in alone)) + max(first - busy for first, busy in alone)

    counts = [1]
    while chunk_count is None and counts[-1] < MOST_CHUNKS and shard_bytes / counts[-1] > CHUNK_BYTES:
        counts.append(2 * counts[-1])
    count = min(counts, key=seconds) if chunk_count is None else chunk_count
    reduce_s = seconds(count)
    used = {figure for clock in clocks for figure in clock.figures}
    return prediction(method, byte_count, reduce_s, reduce_s, used, count)
