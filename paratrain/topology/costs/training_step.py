"""The predicted time of a training step's exchange on CPU ranks, its update included.

Ranks have a core each, which adds, updates and moves messages by turns, so that the times of these add up:

    time = sum + update + spread      (gradients to those who update; the update; parameters to all)

With p ranks on g nodes, m on the fullest node and c on the emptiest, N bytes of gradients in k slices, and for each byte
A seconds to add it, b to send it in the node (a for each message on top), B over a network card (a'), n cards in a node:

    tree, one node         sum = the pipelined tree of `cost`, k chunks, at A for each edge        update U(N), by one
                           spread: nothing is sent, all read one array
    tree, messages         sum = the same with b + A (B + A between nodes), spread = with b (B)    update U(N), by one
    tree, two levels       sum = the same with A (B + A between nodes)                             update U(N), by one
                           spread = with nothing (B between nodes)
    sharded, one node      sum = (p-1)/q N A                                                       update U(N/q) by q
    sharded, messages      spread = M, sum = the same + (p-1)/q N A                                update U(N/q) by q
                           M: k ((m-1) a + (p-m) a') + (m-1)/q N b + (p-m)/q N max(B, m B / n)
    ring, messages         (p-1) rounds of N/p each way, as in `exchanges`, with b + A up, b down  update U(N/p) by all
    mpi                    halving and doubling, as in `exchanges`, with b + A up, b down          update U(N) by all
    two levels             sum = (m-1) v/q N A + (g-1)/q N A + X,  spread = X                      update U(N/q), by u
    (sharded, ring)        X: k (g-1) a' + (g-1) u/q N max(B / u, B / n)

    q roots: with --roots as many as it says, else all p; g c of them on two levels, where no node has more than u = q/g,
    rounded up, and the ranks of the same number, one of each node, have v = min(q, g) at most.

    Where messages carry gradients in fewer bits, b and B of the way up are that much less.

    U(x) = x (2 (2 + h) / r), with h arrays that the solver remembers, each of which is read and written as parameters and
    gradients are, and r the bytes a second that a core reads and writes; "sharded" on one node saves reading the gradients,
    which are in its cache then: 2 (2 + h) - 1. Where only two ranks share memory, the update itself adds both gradients: of
    the three accesses that are A, which make a sum, only the one that reads the other's gradient is left.

The bytes are those of Patarasuk and Yuan 2009 ("Bandwidth optimal all-reduce algorithms for clusters of workstations"), the
rounds of `mpi` Rabenseifner's (2004); what an MPI really does is its own affair. A, b and r are what a core reaches alone;
where many ranks of a node are busy they share its memory. Where ranks wait for each other since some are slower, and what
backward hides of the time on the network, is left out of account, and so are further passes over the gradients
(clip_gradients, layer-wise rates). The default figures are the catalogue's, fitted to benchmarks/results/exchange.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from paratrain.topology.costs.cluster import Cluster, ClusterFabric
from paratrain.topology.costs.contention import Segment
from paratrain.topology.costs.cost import TreeClock
from paratrain.topology.costs.exchanges import doubling_rounds, ring_round, round_seconds
from paratrain.topology.link_figures import LinkFigure, figures, network_figure
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree

__all__ = ["STEP_EXCHANGES", "MessageFabric", "StepPrediction", "StepWork", "predict_step"]

STEP_EXCHANGES = ("tree", "sharded", "ring", "mpi")

# Bytes that memory moves for a byte that is added (two read, one written), and for one that a message copies twice.
_MOVED_BY_ADDING = 3
# So few ranks' gradients are added by the update that uses them.
_MOST_ADDED_BY_UPDATE = 2
_MOVED_BY_MESSAGES = 4


@dataclass(frozen=True)
class StepWork:
    """What ranks have to do in every step: `byte_count` bytes of gradients in slices of about `slice_bytes`.

    The solver remembers `history_count` values for each that it updates: 1 for SGD, 2 for Adam. Messages carry
    `sent_share` of the bytes of gradients: half of them where they go in 16 bits. Of "sharded" only `root_count` ranks
    update, where it is not None.
    """

    byte_count: int
    slice_bytes: int
    history_count: int = 1
    sent_share: float = 1.0
    root_count: int | None = None

    @property
    def slice_count(self) -> int:
        """The count of slices."""
        return max(1, -(-self.byte_count // self.slice_bytes))


@dataclass(frozen=True)
class StepPrediction:
    """The predicted seconds of a step's exchange and update, on the rank that is the last to be done.

    `exchange` is one of STEP_EXCHANGES, `sum_s` the time in which gradients reach those who update, `update_s` that of the
    update, `spread_s` that in which parameters reach all ranks.
    """

    exchange: str
    sum_s: float
    update_s: float
    spread_s: float

    @property
    def total_s(self) -> float:
        """The seconds of all of it."""
        return self.sum_s + self.update_s + self.spread_s


class MessageFabric(ClusterFabric):
    """CPU ranks that send each other messages, also within a node; with `adding` the receiver adds what arrives.

    What was measured within a node is of its shared memory, and says nothing of messages. With `shares_memory`, ranks of a
    node read each other's gradients where they lie, and have their parameters in common: only between nodes is anything sent.
    """

    def __init__(self, cluster: Cluster, *, adding: bool, sent_share: float = 1.0, shares_memory: bool = False) -> None:
        plain = {id(node): node if shares_memory else replace(node, measured={}) for node in cluster.nodes}
        super().__init__(Cluster(tuple(plain[id(node)] for node in cluster.nodes)))
        self._is_adding, self._shares_memory = adding, shares_memory
        self._add_s = 1 / _added_bytes_per_s() if adding else 0.0
        self._sent_share = sent_share
        self._with_adding: dict[LinkFigure, LinkFigure] = {}

    def figure(self, one: int, other: int) -> LinkFigure:
        """See `Fabric`."""
        is_inside = self._is_inside(one, other)
        if is_inside and self._shares_memory:
            found = super().figure(one, other)
            return found if self._is_adding else LinkFigure(math.inf, found.latency_s, origin=found.origin)
        link = _message_figure() if is_inside else super().figure(one, other)
        if link not in self._with_adding:
            seconds = self._sent_share / link.bytes_per_s + self._add_s
            self._with_adding[link] = LinkFigure(1 / seconds, link.latency_s, origin=link.origin)
        return self._with_adding[link]

    def common(self, source: int, target: int) -> tuple[Segment, ...]:
        """See `Fabric`."""
        is_still = self._shares_memory and not self._is_adding and self._is_inside(source, target)
        return () if is_still else super().common(source, target)

    def capacity(self, segment: Segment) -> float:
        """See `Fabric`; in bytes of gradients."""
        is_memory = self._shares_memory and ": card " not in segment
        return super().capacity(segment) / (1.0 if is_memory else self._sent_share)

    def _is_inside(self, one: int, other: int) -> bool:
        return self.cluster.members[one][0] == self.cluster.members[other][0]


def predict_step(
    exchange: str, cluster: Cluster, tree: Tree, work: StepWork, *, shares_memory: bool = True
) -> StepPrediction:
    """Predict a step by this exchange over the CPU ranks of a cluster, which `tree` joins (used by "tree" alone).

    With `shares_memory`, ranks of a node read each other's arrays, where the exchange can. See above for the formulas.
    """
    assert exchange in STEP_EXCHANGES, exchange
    step = _Step(cluster, tree, work)
    if cluster.size == 1:
        return step.prediction(exchange, 0.0, step.update_s(work.byte_count, 1), 0.0)
    is_shared = shares_memory and step.most > 1
    match exchange:
        case "tree" if is_shared and step.node_count == 1:
            return step.shared_tree()
        case "tree":
            return step.message_tree(shares_memory=is_shared)
        case "sharded" if is_shared and step.node_count == 1:
            return step.shared_sharded()
        case "sharded" | "ring" if is_shared and step.node_count > 1:
            return step.two_levels(exchange)
        case "sharded":
            return step.message_sharded()
        case "ring":
            return step.ring()
    return step.mpi()


class _Step:
    """One prediction in the making; the names are those of the formulas above."""

    def __init__(self, cluster: Cluster, tree: Tree, work: StepWork) -> None:
        self.cluster, self.tree, self.work = cluster, tree, work
        counts = [len(node.members) for node in cluster.nodes]
        self.size, self.node_count, self.most, self.fewest = cluster.size, len(counts), max(counts), min(counts)
        self.slices = work.slice_count
        core = figures()["core"]
        self._core_bytes_per_s: float = core["gb_per_s"] * 1e9
        self._slices_s: float = self.slices * core["slice_us"] * 1e-6
        self._memory_bytes_per_s: float = (
            _MOVED_BY_ADDING * figures()["shared"]["memory_gb_per_s"] * 1e9 * self._numa_count
        )

    @cached_property
    def fabric(self) -> ClusterFabric:
        return ClusterFabric(self.cluster)

    @property
    def _numa_count(self) -> int:
        """The NUMA nodes that ranks of the first node are known to be bound to; 1 where nobody said."""
        return max(1, len({member.numa_node for member in self.cluster.nodes[0].members}))

    def prediction(self, exchange: str, sum_s: float, update_s: float, spread_s: float) -> StepPrediction:
        """What was found; the slices' own costs count as part of the sum."""
        sum_s += self._slices_s if self.size > 1 else 0.0
        return StepPrediction(exchange, sum_s, update_s, spread_s)

    def update_s(self, byte_count: float, busy: int, *, gradients_moved: int = 2) -> float:
        """U: the seconds for updating `byte_count` bytes of parameters, while `busy` ranks of a node do so.

        `gradients_moved` is how many times the bytes of gradients are read or written.
        """
        moved = 2 * (1 + self.work.history_count) + gradients_moved
        return byte_count * moved / self._shared(self._core_bytes_per_s, 1, busy)

    def add_s(self, byte_count: float, busy: int) -> float:
        """The seconds for adding `byte_count` bytes of other ranks of the node, while `busy` of them do so."""
        return byte_count / self._shared(1 / self._seconds_per_added_byte, _MOVED_BY_ADDING, busy)

    def _shared(self, rate: float, moved: int, busy: int) -> float:
        """The rate of each of `busy` ranks that would all reach `rate` alone, and move so many bytes for each byte."""
        return min(rate, self._memory_bytes_per_s / (moved * busy))

    @cached_property
    def _seconds_per_added_byte(self) -> float:
        """The slowest rank's, over the other ranks of its node, of which it adds equal parts."""
        return max(map(_mean_seconds_per_byte, set(self.cluster.nodes)))

    @cached_property
    def network(self) -> LinkFigure:
        """What the slowest of the nodes' cards can do."""
        found = set(map(network_figure, self.cluster.nodes))
        return LinkFigure(min(figure.bytes_per_s for figure in found), max(figure.latency_s for figure in found))

    @property
    def cards(self) -> int:
        return min(node.network_cards for node in self.cluster.nodes)

    def shared_tree(self) -> StepPrediction:
        clock = TreeClock(self.fabric.node_fabrics[0], self.tree)
        latency = max(clock.latency)
        sum_s = clock.reduce_s(self.work.byte_count, self.slices)
        return self.prediction("tree", sum_s, self.update_s(self.work.byte_count, 1), latency)

    def message_tree(self, *, shares_memory: bool) -> StepPrediction:
        up, down = (
            TreeClock(fabric, self.tree).reduce_s(self.work.byte_count, self.slices)
            for fabric in self.message_fabrics(shares_memory=shares_memory)
        )
        return self.prediction("tree", up, self.update_s(self.work.byte_count, 1), down)

    def shared_sharded(self) -> StepPrediction:
        roots = self.work.root_count or self.size
        part = self.work.byte_count / roots
        latency = figures()["shared"]["within_a_numa_node"]["latency_us"] * 1e-6
        sum_s = self.add_s((self.size - 1) * part, roots)
        if 1 < roots <= self.size <= _MOST_ADDED_BY_UPDATE:
            sum_s /= _MOVED_BY_ADDING
        update_s = self.update_s(part, roots, gradients_moved=1 if roots > 1 else 2)
        return self.prediction("sharded", latency + sum_s, update_s, latency)

    def message_sharded(self) -> StepPrediction:
        roots = self.work.root_count or self.size
        part, inside, outside = self.work.byte_count / roots, self.most - 1, self.size - self.most
        message = _message_figure()
        rate = self._shared(message.bytes_per_s, _MOVED_BY_MESSAGES, self.most)
        latency_s, bytes_s = inside * self.slices * message.latency_s, inside * part / rate
        if outside:
            network = self.network
            latency_s += outside * self.slices * network.latency_s
            bytes_s += outside * part / network.bytes_per_s * max(1.0, self.most / self.cards)
        busy = min(roots, self.most)
        sum_s = latency_s + self.work.sent_share * bytes_s + self.add_arrived_s((self.size - 1) * part, busy)
        return self.prediction("sharded", sum_s, self.update_s(part, busy), latency_s + bytes_s)

    def add_arrived_s(self, byte_count: float, busy: int) -> float:
        """The seconds for adding what messages have brought."""
        return byte_count / self._shared(_added_bytes_per_s(), _MOVED_BY_ADDING, busy)

    def ring(self) -> StepPrediction:
        transfers = ring_round(range(self.size), self.work.byte_count / self.slices)
        up, down = (
            self.slices * (self.size - 1) * round_seconds(fabric, transfers) for fabric in self.message_fabrics()
        )
        return self.prediction("ring", up, self.update_s(self.work.byte_count / self.size, self.most), down)

    def mpi(self) -> StepPrediction:
        rounds = doubling_rounds(range(self.size), self.work.byte_count / self.slices, halving=True)
        middle = len(rounds) // 2
        halves = zip(self.message_fabrics(), (rounds[:middle], rounds[middle:]), strict=True)
        up, down = (
            self.slices * sum(round_seconds(fabric, transfers) for transfers in half) for fabric, half in halves
        )
        return self.prediction("mpi", up, self.update_s(self.work.byte_count, self.most), down)

    def message_fabrics(self, *, shares_memory: bool = False) -> tuple[MessageFabric, MessageFabric]:
        """For gradients, which are added where they arrive, and for parameters."""
        up = MessageFabric(self.cluster, adding=True, sent_share=self.work.sent_share, shares_memory=shares_memory)
        return up, MessageFabric(self.cluster, adding=False, shares_memory=shares_memory)

    def two_levels(self, exchange: str) -> StepPrediction:
        network, others = self.network, self.node_count - 1
        roots = self.work.root_count if exchange == "sharded" else None
        roots = roots or self.node_count * self.fewest
        part, of_node = self.work.byte_count / roots, -(-roots // self.node_count)
        across = others * of_node * part / network.bytes_per_s
        latency_s, bytes_s = others * self.slices * network.latency_s, across / min(of_node, self.cards)
        sum_s = self.add_s((self.most - 1) * min(roots, self.node_count) * part, of_node) if self.most > 1 else 0.0
        sum_s += latency_s + self.work.sent_share * bytes_s + self.add_arrived_s(others * part, of_node)
        return self.prediction(exchange, sum_s, self.update_s(part, of_node), latency_s + bytes_s)


def _message_figure() -> LinkFigure:
    entry = figures()["messages"]
    return LinkFigure(entry["gb_per_s"] * 1e9, entry["latency_us"] * 1e-6)


def _added_bytes_per_s() -> float:
    """What a core adds of an array in memory near it."""
    return float(figures()["shared"]["within_a_numa_node"]["gb_per_s"]) * 1e9


def _mean_seconds_per_byte(node: Machine) -> float:
    """For the slowest rank of a node: the mean over the others of the seconds to add a byte of theirs."""
    fabric = ClusterFabric(Cluster((node,)))
    ranks = range(fabric.size)
    sums = [sum(1 / fabric.figure(one, other).bytes_per_s for other in ranks if other != one) for one in ranks]
    return max(sums) / max(1, fabric.size - 1)
