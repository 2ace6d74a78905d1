"""The predicted time of a training step's exchange on GPUs, its update included.

With p ranks on g nodes, m on the fullest node, N bytes of gradients in k slices, P what a GPU's PCIe slot carries, and U(x)
the update of x bytes, which moves x 2 (2 + h) bytes of the GPU's memory, h being what the solver remembers of each value:

    directly, one node     tree      sum = spread = the pipelined tree of `cost`, k chunks          update U(N)
                           sharded   sum = spread = one round in which all read N/q of all others   update U(N/q)
    directly, g nodes      sharded, ring: the round of one node with N/m, then the part N/m through the host,
                           2 N/(m P), and between the nodes as CPU ranks, one of each node          update U(N/p)
    nccl                   sum = spread = (p-1) rounds of a ring with N/p                           update U(N/p)
    through the host       sum = N/P + what CPU ranks take to sum + x/P, with x what the rank owns,
                           spread = x/P + what CPU ranks take to spread + N/P                       update U(x)

to which each slice adds what the host and the launch of kernels take, for each half and each copy that it waits for. Rounds
and their shared links are those of `exchanges`, the links those of the catalogue or measured ones. No time of an exchange
between GPUs was measured for any of this: it ranks the ways, and says little of milliseconds. Backward hides a part of it,
which is left out of account.
"""

from __future__ import annotations

from functools import cached_property

from paratrain.topology.costs.cluster import Cluster, ClusterFabric
from paratrain.topology.costs.cost import TreeClock
from paratrain.topology.costs.exchanges import ring_round, round_seconds
from paratrain.topology.costs.training_step import StepPrediction, StepWork, predict_step
from paratrain.topology.link_figures import figures, slot_bytes_per_s
from paratrain.topology.machine import Gpu
from paratrain.topology.tree import Tree

__all__ = ["DEVICE_STEP_EXCHANGES", "predict_device_step"]

DEVICE_STEP_EXCHANGES = ("tree", "sharded", "ring", "mpi", "nccl")


def predict_device_step(
    exchange: str, gpus: Cluster, hosts: Cluster, tree: Tree, work: StepWork, *, directly: bool
) -> StepPrediction:
    """Predict a step by this exchange over the GPUs of a cluster; `hosts` are the same ranks on the CPUs beside them.

    `tree` joins them, for "tree" alone. With `directly`, GPUs of a node reach each other's memory, where the exchange can use
    that. See above for the formulas.
    """
    assert exchange in DEVICE_STEP_EXCHANGES, exchange
    step = _Step(gpus, hosts, tree, work)
    if gpus.size == 1:
        return step.prediction(exchange, 0.0, work.byte_count, 0.0)
    is_one_node = len(gpus.nodes) == 1
    match exchange:
        case "nccl":
            return step.nccl()
        case "tree" if directly and is_one_node:
            return step.direct_tree()
        case "sharded" if directly and is_one_node:
            return step.direct_sharded()
        case "sharded" | "ring" if directly and not is_one_node:
            return step.two_levels(exchange)
    return step.staged(exchange)


class _Step:
    """One prediction in the making; the names are those of the formulas above."""

    def __init__(self, gpus: Cluster, hosts: Cluster, tree: Tree, work: StepWork) -> None:
        self.gpus, self.hosts, self.tree, self.work = gpus, hosts, tree, work
        self.size, self.most = gpus.size, max(len(node.members) for node in gpus.nodes)
        self._device = figures()["device"]
        self.slices_s = work.slice_count * float(self._device["slice_us"]) * 1e-6

    @cached_property
    def fabric(self) -> ClusterFabric:
        return ClusterFabric(self.gpus)

    def prediction(self, exchange: str, sum_s: float, updated_bytes: float, spread_s: float) -> StepPrediction:
        moved = updated_bytes * 2 * (2 + self.work.history_count)
        update_s = moved / (float(self._device["memory_gb_per_s"]) * 1e9)
        extra_s = self.slices_s if self.size > 1 else 0.0
        return StepPrediction(exchange, sum_s + extra_s, update_s, spread_s + extra_s)

    def direct_tree(self) -> StepPrediction:
        seconds = TreeClock(self.fabric, self.tree).reduce_s(self.work.byte_count, self.work.slice_count)
        return self.prediction("tree", seconds, self.work.byte_count, seconds)

    def direct_sharded(self) -> StepPrediction:
        owners = self.work.root_count or self.size
        seconds = self._all_to_all_s(range(self.size), range(owners), self.work.byte_count / owners)
        return self.prediction("sharded", seconds, self.work.byte_count / owners, seconds)

    def two_levels(self, exchange: str) -> StepPrediction:
        """Every node as the fullest one: its ranks have the most to read, and share its network cards."""
        part = self.work.byte_count / self.most
        first = next(at for at, node in enumerate(self.gpus.nodes) if len(node.members) == self.most)
        begin = self.gpus.first[first]
        members = range(begin, begin + self.most)
        inside = self._all_to_all_s(members, members, part)
        host = predict_step(exchange, self.hosts, self.tree, self.work)
        copies = 2 * part / self._slot_bytes_per_s
        owned = self.work.byte_count / (self.work.root_count or self.size)
        return self.prediction(exchange, inside + copies + host.sum_s, owned, inside + copies + host.spread_s)

    def nccl(self) -> StepPrediction:
        work = self.work
        transfers = ring_round(range(self.size), work.byte_count / work.slice_count)
        seconds = work.slice_count * (self.size - 1) * round_seconds(self.fabric, transfers)
        seconds += work.slice_count * float(self._device["nccl_call_us"]) * 1e-6
        return self.prediction("nccl", seconds, work.byte_count / self.size, seconds)

    def staged(self, exchange: str) -> StepPrediction:
        host = predict_step(exchange, self.hosts, self.tree, self.work)
        count = {"tree": 1, "mpi": 1, "sharded": self.work.root_count or self.size}.get(exchange, self.size)
        owned, slot = self.work.byte_count / count, self._slot_bytes_per_s
        there, back = self.work.byte_count / slot, owned / slot
        sum_s = there + host.sum_s + back + self.slices_s  # one more time to wait for a copy
        if exchange == "mpi":  # every rank has the sum, and updates all
            return self.prediction(exchange, sum_s, owned, -self.slices_s)
        return self.prediction(exchange, sum_s, owned, back + host.spread_s + there + self.slices_s)

    def _all_to_all_s(self, readers: range, owners: range, byte_count: float) -> float:
        """One round in which the first readers, as many as there are owners, read from all others."""
        reading = list(readers)[: len(owners)]
        transfers = [(other, one, byte_count) for one in reading for other in readers if other != one]
        return round_seconds(self.fabric, transfers)

    @property
    def _slot_bytes_per_s(self) -> float:
        """The slowest slot; where GPUs are shared, so is their slot."""
        rates = []
        for node in self.gpus.nodes:
            found = [member for member in node.members if isinstance(member, Gpu)]
            buses = [gpu.bus_id for gpu in found]
            rates += [slot_bytes_per_s(gpu) / max(1, buses.count(gpu.bus_id) if gpu.bus_id else 1) for gpu in found]
        return min(rates)
