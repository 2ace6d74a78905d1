"""How ranks that compute on CPUs exchange: which exchanges they can take, in which memory, and what a log says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paratrain.blob import Memory, SyncedMemory
from paratrain.comm import Communicator
from paratrain.comm.choose import AUTO, check_on_cpu, check_roots, create_exchange, slice_length, uses_shared_memory
from paratrain.comm.exchange import Exchange, Part
from paratrain.comm.memory import ExchangeMemory
from paratrain.comm.progress import Condition
from paratrain.data_parallel.automatic import Choice, choose_exchange, possible_exchanges
from paratrain.data_parallel.gradient_dtype import check_gradient_dtype
from paratrain.dtypes import dtype_named
from paratrain.errors import SolverError
from paratrain.topology.costs.training_step import StepWork
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree

__all__ = ["ExchangeSettings", "FindMachine", "HostWay", "Way", "check_settings"]

FindMachine = Callable[[int], Machine]
"""Gives this node's GPUs and their links, its member l being the GPU of local rank l, to exchange so many bytes."""

ITEM_BYTES = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class ExchangeSettings:
    """What was asked for; see :func:`paratrain.data_parallel.create_parallel_solver`."""

    exchange: str = "tree"
    roots: int | None = None
    gradient_dtype: str = "float32"
    shares_parameters: bool = True
    shows_updates: bool = False
    """All updates have to be made on one rank, which shows them (debug_info)."""
    history_count: int = 1
    """How many values the solver remembers of each that it updates."""
    machine: Machine | None = None

    def work(self, byte_count: int, slice_length: int) -> StepWork:
        """What the cost model is asked about, for slices of so many elements."""
        return StepWork(
            byte_count,
            slice_length * ITEM_BYTES,
            self.history_count,
            sent_share=dtype_named(self.gradient_dtype).itemsize / ITEM_BYTES,
            root_count=self.roots,
        )


def check_settings(settings: ExchangeSettings, communicator: Communicator, *, shares_memory: bool) -> None:
    """Raise SolverError or CommunicationError for what no ranks, or not these, can do."""
    check_roots(settings.exchange, settings.roots, communicator, shares_memory=shares_memory)
    if settings.shows_updates and settings.exchange not in ("tree", AUTO) and communicator.size > 1:
        raise SolverError(
            f"debug_info shows every update on the root, and the exchange '{settings.exchange}' makes it on several ranks: "
            "train with --exchange tree, or without debug_info"
        )


class Way(Protocol):
    """All ranks make the same calls in the same order: `choose`, `array` for "diff" and "data", `exchange`."""

    @property
    def problem(self) -> str:
        """Why the ranks of a node do not reach each other's arrays, though they were to; empty where nothing is wrong."""

    @property
    def has_common_parameters(self) -> bool:
        """Whether all ranks have one array of parameters."""

    @property
    def are_sent(self) -> bool:
        """Whether gradients go by messages, which may carry them in fewer bits."""

    def choose(self, byte_count: int) -> Choice:
        """The exchange for gradients of so many bytes: the one that was asked for, or the one predicted to be the fastest."""

    def take(self, choice: Choice) -> None:
        """Make arrays for this exchange from now on."""

    def array(self, name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        """The flat array "diff" or "data", for the exchange that was taken."""

    def slice_length(self, name: str) -> int:
        """The elements of a slice that suit the exchange of this name."""

    def exchange(self, name: str, parts: Sequence[Part], tree: Tree) -> Exchange:
        """The exchange of this name for the arrays that were made."""

    def describe(self) -> str:
        """What a log says of it: ``through shared memory``."""

    def computed(self) -> Condition | None:
        """The question whether a device has done what the computation has been given so far; None where there is no device."""

    def close(self) -> None:
        """Give back what the arrays hold of other ranks, when nothing is under way. All ranks call it."""


class HostWay:
    """Ranks on CPUs: through shared memory within nodes, by messages between them."""

    def __init__(self, communicator: Communicator, settings: ExchangeSettings, tree: Tree | None) -> None:
        check_on_cpu(settings.exchange)
        check_settings(settings, communicator, shares_memory=settings.shares_parameters)
        self._communicator, self._settings, self._tree = communicator, settings, tree
        self._memory = ExchangeMemory(
            communicator,
            is_shared=settings.shares_parameters and uses_shared_memory(settings.exchange, communicator),
        )
        possible, self._reason = possible_exchanges(
            communicator, shows_updates=settings.shows_updates, shares_parameters=settings.shares_parameters
        )
        if communicator.size > 1:
            possible = check_gradient_dtype(settings.gradient_dtype, settings.exchange, possible)
        self._possible = possible
        self._is_one_node = len(set(communicator.node_of_rank)) == 1

    @property
    def problem(self) -> str:
        return self._memory.problem

    @property
    def has_common_parameters(self) -> bool:
        return self._memory.is_shared and self._is_one_node

    @property
    def are_sent(self) -> bool:
        return not self.has_common_parameters

    def choose(self, byte_count: int) -> Choice:
        assert self._tree is not None
        settings = self._settings
        return choose_exchange(
            settings.exchange,
            self._possible,
            self._communicator,
            self._tree,
            lambda name: settings.work(byte_count, self.slice_length(name)),
            shares_memory=settings.shares_parameters and not self._memory.problem,
            machine=settings.machine,
            reason=self._reason,
        )

    def take(self, choice: Choice) -> None:
        self._memory.is_shared &= uses_shared_memory(choice.name, self._communicator)

    def array(self, name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        found = self._memory.data(count, dtype) if name == "data" else self._memory.diff(count, dtype)
        return SyncedMemory(count, dtype, host=found)

    def slice_length(self, name: str) -> int:
        return slice_length(name, self._communicator, self._settings.roots)

    def exchange(self, name: str, parts: Sequence[Part], tree: Tree) -> Exchange:
        settings = self._settings
        return create_exchange(
            name, self._communicator, self._memory, parts, tree, settings.gradient_dtype, settings.roots
        )

    def describe(self) -> str:
        memory = self._memory
        if memory.is_shared:
            return "through shared memory" + ("" if self._is_one_node else " within nodes and by messages between them")
        return "by messages" + (f" ({memory.problem})" if memory.problem else "")

    def computed(self) -> None:
        """The host computes."""

    def close(self) -> None:
        """Nothing: shared memory goes with the processes that use it."""
