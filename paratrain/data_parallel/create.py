"""From settings to a solver that trains together with those of the other ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.blob import Memory, SyncedMemory
from paratrain.comm import Communicator
from paratrain.comm.choose import create_exchange, slice_length, uses_shared_memory
from paratrain.comm.memory import ExchangeMemory
from paratrain.data.options import DataOptions, default_worker_count
from paratrain.data_parallel.driver import DataParallel
from paratrain.data_parallel.ranks import TreeRanks, join_ranks
from paratrain.data_parallel.slices import find_slices
from paratrain.errors import SolverError
from paratrain.net import Allocator, Net
from paratrain.proto import SolverParameter
from paratrain.random import entropy
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.nets import NetOptions
from paratrain.topology.tree import Tree

__all__ = ["create_parallel_solver", "exchanged_bytes"]


def create_parallel_solver(
    parameter: SolverParameter,
    communicator: Communicator,
    *,
    backend: str = "numpy",
    net_options: NetOptions | None = None,
    tree: Tree | None = None,
    exchange: str = "tree",
    shares_parameters: bool = True,
) -> Solver:
    """Return this rank's solver, joined to those of the other ranks by ``tree`` (see :func:`join_ranks`).

    ``exchange`` is one of :data:`paratrain.comm.choose.EXCHANGES`. ``shares_parameters`` lets the ranks of a node use one array
    of parameters, where the exchange can: what any of them writes there, all see. All ranks call it with the same parameter,
    tree and exchange. A negative ``random_seed`` is drawn by rank 0 for all ranks. Raises SolverError where the exchange cannot
    serve the parameter.
    """
    if parameter.debug_info and exchange != "tree" and communicator.size > 1:
        raise SolverError(
            f"debug_info shows every update on the root, and the exchange '{exchange}' makes it on several ranks: train with "
            "--exchange tree, or without debug_info"
        )
    seed = parameter.random_seed
    if seed < 0:
        seed = communicator.broadcast_object(entropy())
    ranks = join_ranks(communicator, tree) if communicator.size > 1 else None
    memory = ExchangeMemory(communicator, is_shared=shares_parameters and uses_shared_memory(exchange, communicator))
    options = net_options or NetOptions(data=DataOptions(default_worker_count(communicator.local_size)))
    solver = create_solver(
        parameter,
        backend=create_backend(backend),
        rank=communicator.rank,
        size=communicator.size,
        seed=seed,
        ranks=ranks,
        net_options=options if ranks is None else replace(options, allocate=_allocator(memory)),
    )
    if ranks is not None:
        _join(solver, ranks, memory, exchange)
    return solver


def _allocator(memory: ExchangeMemory) -> Allocator:
    def allocate(name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        if name == "statistics":
            return SyncedMemory(count, dtype)
        array = memory.data(count, dtype) if name == "data" else memory.diff(count, dtype)
        return SyncedMemory(count, dtype, host=array)

    return allocate


def _join(solver: Solver, ranks: TreeRanks, memory: ExchangeMemory, name: str) -> None:
    communicator = ranks.communicator
    is_one_node = len(set(communicator.node_of_rank)) == 1
    ranks.parameters_are_common = memory.is_shared and is_one_node
    slices = find_slices(solver.net, slice_length(name, communicator))
    exchange = create_exchange(name, communicator, memory, [found.part for found in slices], ranks.tree)
    way = "by messages" + (f" ({memory.problem})" if memory.problem else "")
    if memory.is_shared:
        way = "through shared memory" + ("" if is_one_node else " within nodes and by messages between them")
    DataParallel(solver, ranks, exchange, slices, way)
    communicator.barrier()  # nobody begins to train before all have put their first parameters where others may see them


def exchanged_bytes(net: Net, size: int) -> tuple[int, int]:
    """Predict the bytes that a step sends over each link of a tree of ``size`` ranks: (down, up); (0, 0) for one rank.

    Down go the parameters and the running statistics, up come the gradients, each once over each of size - 1 links.
    """
    if size == 1:
        return 0, 0
    parameters = net.parameters
    item_bytes = np.dtype(parameters.dtype).itemsize
    return (parameters.data.count + parameters.statistics.count) * item_bytes, parameters.diff.count * item_bytes
