"""How ranks that compute on GPUs exchange: through each other's memory, by NCCL, or through the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy.typing as npt

from paratrain.backends import Backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.blob import Memory, SyncedMemory
from paratrain.comm import Communicator
from paratrain.comm.choose import AUTO, slice_length
from paratrain.comm.device import ExchangeDevice, open_device
from paratrain.comm.device_exchange import create_device_exchange, device_slice_length, reaches_others
from paratrain.comm.device_memory import DeviceMemory
from paratrain.comm.exchange import Exchange, Part
from paratrain.comm.nccl import NCCL, why_not_nccl
from paratrain.comm.progress import Condition
from paratrain.data_parallel.automatic import Choice, best_of, cluster_of_ranks, possible_exchanges
from paratrain.data_parallel.gradient_dtype import check_gradient_dtype
from paratrain.data_parallel.ways import ExchangeSettings, FindMachine, check_settings
from paratrain.errors import CommunicationError
from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.device_step import predict_device_step
from paratrain.topology.hosts import RankPlace, local_place
from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.tree import Tree

__all__ = ["DeviceWay"]


class DeviceWay:
    """Ranks on GPUs; see :class:`paratrain.data_parallel.ways.Way`. What is taken first is their own links.

    Raises CommunicationError where NCCL is asked for and cannot be used.
    """

    def __init__(
        self,
        communicator: Communicator,
        settings: ExchangeSettings,
        tree: Tree | None,
        backend: Backend,
        find_machine: FindMachine | None = None,
    ) -> None:
        assert isinstance(backend, CupyBackend)
        check_settings(settings, communicator, shares_memory=True)
        self._communicator, self._settings, self._backend = communicator, settings, backend
        self._find_machine = find_machine
        self._machines: list[Machine] = []
        self._is_one_node = communicator.local_size == communicator.size
        self._name, self._detour, self._problem_told = settings.exchange, "", ""
        if communicator.size == 1:
            return
        assert tree is not None
        self._tree = tree
        self._device: ExchangeDevice = open_device(backend.device.number, compute_stream=backend.stream)
        self._memory = DeviceMemory(
            communicator, self._device, is_shared=reaches_others(settings.exchange, communicator)
        )
        self._possible, self._reason = self._find_possible()

    def _find_possible(self) -> tuple[tuple[str, ...], str]:
        settings, communicator = self._settings, self._communicator
        possible, reason = possible_exchanges(
            communicator, shows_updates=settings.shows_updates, shares_parameters=settings.shares_parameters
        )
        if settings.exchange in (AUTO, NCCL):
            problem = why_not_nccl(communicator, self._device)
            if problem and settings.exchange == NCCL:
                raise CommunicationError(f"--exchange nccl: {problem}")
            if not problem and not reason:
                possible = (*possible, NCCL)
        return check_gradient_dtype(settings.gradient_dtype, settings.exchange, possible), reason

    @property
    def problem(self) -> str:
        return self._memory.problem

    @property
    def has_common_parameters(self) -> bool:
        return False

    @property
    def are_sent(self) -> bool:
        return self._name != NCCL and not (self._memory.is_shared and self._is_one_node)

    def choose(self, byte_count: int) -> Choice:
        communicator, settings = self._communicator, self._settings
        if not self._machines:
            own = self._own_machine(byte_count) if communicator.local_rank == 0 else None
            self._machines = [found for found in communicator.allgather_objects(own) if found is not None]
        places = communicator.gather_objects(local_place())
        choice: Choice | None = None
        if places is not None:
            names = self._possible if settings.exchange == AUTO else (settings.exchange,)
            choice = self._choose_here(names, places, byte_count)
        found: Choice = communicator.broadcast_object(choice)
        self._name = found.name
        return found

    def _own_machine(self, byte_count: int) -> Machine:
        if self._find_machine is not None:
            return self._find_machine(byte_count)
        return Machine(source="the ranks of this run", gpus=tuple(map(Gpu, range(self._communicator.local_size))))

    def _choose_here(self, names: Sequence[str], places: Sequence[RankPlace], byte_count: int) -> Choice:
        """On rank 0: members of clusters are the ranks node by node, which is how the tree is numbered for them."""
        nodes, settings = self._communicator.node_of_rank, self._settings
        order = sorted(range(len(nodes)), key=lambda rank: (nodes[rank], rank))
        gpus, hosts = Cluster(tuple(self._machines)), cluster_of_ranks(nodes, places, settings.machine)
        planned = None
        if self._is_one_node and settings.machine is None and self._find_machine is not None:
            planned = plan_machine(self._machines[0], byte_count, root=self._machines[0].indices[0]).tree
        tree = self._tree if planned is None else planned
        in_order = tree.renumbered([order.index(rank) for rank in range(len(order))])
        predictions = [
            predict_device_step(
                name,
                gpus,
                hosts,
                in_order,
                settings.work(byte_count, self.slice_length(name)),
                directly=self._goes_directly(name, tree),
            )
            for name in names
        ]
        choice = best_of(settings.exchange, predictions, self._reason)
        return replace(choice, tree=planned) if choice.name == "tree" else choice

    def _goes_directly(self, name: str, tree: Tree) -> bool:
        """Whether GPUs of a node may read each other's memory for it: no link that it takes there is known to be bad."""
        if not reaches_others(name, self._communicator) or self.problem:
            return False
        vetoed = [machine for machine in self._machines if machine.vetoes]
        if not vetoed or name != "tree":
            return not vetoed
        indices = self._machines[0].indices
        pairs = {tuple(sorted((indices[above], indices[below]))) for above, below in tree.edges()}
        return pairs.isdisjoint(self._machines[0].vetoes)

    def take(self, choice: Choice) -> None:
        self._name = choice.name
        if reaches_others(choice.name, self._communicator) and not self._goes_directly(
            choice.name, choice.tree or self._tree
        ):
            self._detour = next((reason for one in self._machines for reason in one.vetoes.values()), "")
            self._memory.is_shared = False
        self._memory.is_shared &= reaches_others(choice.name, self._communicator)

    def array(self, name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        found = self._memory.data(count, dtype) if name == "data" else self._memory.diff(count, dtype)
        return SyncedMemory(count, dtype, on_device=(self._backend.device, found))

    def slice_length(self, name: str) -> int:
        if name == NCCL or reaches_others(name, self._communicator):
            return device_slice_length()
        return slice_length(name, self._communicator, self._settings.roots)

    def exchange(self, name: str, parts: Sequence[Part], tree: Tree) -> Exchange:
        settings = self._settings
        return create_device_exchange(
            name, self._communicator, self._device, self._memory, parts, tree, settings.gradient_dtype, settings.roots
        )

    def describe(self) -> str:
        if self._name == NCCL:
            return "between the GPUs"
        if self._memory.is_shared:
            way = "through the GPUs' memory (CUDA IPC)"
            return way if self._is_one_node else f"{way} within nodes and through the host between them"
        reason = self._memory.problem or self._detour
        return "through the host's memory" + (f" ({reason})" if reason else "")

    def computed(self) -> Condition:
        return self._device.computed()

    def close(self) -> None:
        """Close the other ranks' blocks: only then may their owners let go of them."""
        self._memory.close()
