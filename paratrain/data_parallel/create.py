"""From settings to a solver that trains together with those of the other ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.blob import Memory, SyncedMemory
from paratrain.comm import Communicator
from paratrain.comm.choose import AUTO, check_on_cpu, check_roots, create_exchange, slice_length, uses_shared_memory
from paratrain.comm.gradient_messages import gradient_dtype as gradient_dtype_of
from paratrain.comm.memory import ExchangeMemory
from paratrain.data.options import DataOptions, default_worker_count
from paratrain.data_parallel.automatic import Choice, choose_exchange, possible_exchanges
from paratrain.data_parallel.batch_norm import set_batch_norm
from paratrain.data_parallel.driver import DataParallel
from paratrain.data_parallel.gradient_dtype import OVERFLOW_HINT, check_gradient_dtype, describe_gradients
from paratrain.data_parallel.ranks import TreeRanks, join_ranks
from paratrain.data_parallel.slices import find_slices
from paratrain.errors import OtherRankFailedError, SolverError
from paratrain.net import Net
from paratrain.proto import SolverParameter
from paratrain.random import entropy
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.factory import SOLVERS
from paratrain.solvers.nets import NetOptions
from paratrain.topology.costs.training_step import StepWork
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree

__all__ = ["create_parallel_solver", "exchanged_bytes"]

_ITEM_BYTES = np.dtype(np.float32).itemsize


def create_parallel_solver(
    parameter: SolverParameter,
    communicator: Communicator,
    *,
    backend: str | None = None,
    net_options: NetOptions | None = None,
    tree: Tree | None = None,
    exchange: str = "tree",
    roots: int | None = None,
    shares_parameters: bool = True,
    machine: Machine | None = None,
    gradient_dtype: str = "float32",
    batch_norm: str = "root",
) -> Solver:
    """Return this rank's solver, joined to those of the other ranks by ``tree`` (see :func:`join_ranks`).

    ``exchange`` is one of :data:`paratrain.comm.choose.EXCHANGES`, or AUTO for the one of them that is predicted to be the
    fastest; ``machine``, if rank 0 gives one, may have better figures of links than the catalogue. ``shares_parameters`` lets
    the ranks of a node use one array of parameters, where the exchange can: what any of them writes there, all see. All ranks
    call it with the same parameter, tree and exchange. A negative ``random_seed`` is drawn by rank 0 for all ranks. Raises
    SolverError where the exchange cannot serve the parameter, CommunicationError where it cannot serve the ranks.

    ``roots`` says how many ranks "sharded" updates on, each a part of its own with what the solver remembers of it: from 1 to
    as many as there are, which is the default. CommunicationError for another number, and with another exchange.

    Messages carry gradients as ``gradient_dtype``, one of :data:`paratrain.comm.gradient_messages.GRADIENT_DTYPES`; they are
    summed in float32. ``batch_norm`` is one of :data:`paratrain.data_parallel.batch_norm.BATCH_NORM_MODES`.
    """
    check_on_cpu(exchange)
    check_roots(exchange, roots, communicator, shares_memory=shares_parameters)
    if parameter.debug_info and exchange not in ("tree", AUTO) and communicator.size > 1:
        raise SolverError(
            f"debug_info shows every update on the root, and the exchange '{exchange}' makes it on several ranks: train with "
            "--exchange tree, or without debug_info"
        )
    seed = parameter.random_seed
    if seed < 0:
        seed = communicator.broadcast_object(entropy())
    ranks = join_ranks(communicator, tree) if communicator.size > 1 else None
    memory = ExchangeMemory(communicator, is_shared=shares_parameters and uses_shared_memory(exchange, communicator))
    possible, reason = possible_exchanges(
        communicator, shows_updates=parameter.debug_info, shares_parameters=shares_parameters
    )
    if communicator.size > 1:
        possible = check_gradient_dtype(gradient_dtype, exchange, possible)

    def choose(byte_count: int) -> Choice:
        assert ranks is not None
        history_count = SOLVERS.get(parameter.type).history_count
        return choose_exchange(
            exchange,
            possible,
            communicator,
            ranks.tree,
            lambda name: StepWork(
                byte_count,
                slice_length(name, communicator, roots) * _ITEM_BYTES,
                history_count,
                sent_share=gradient_dtype_of(gradient_dtype).itemsize / _ITEM_BYTES,
                root_count=roots,
            ),
            shares_memory=shares_parameters and not memory.problem,
            machine=machine,
            reason=reason,
        )

    arrays = _Arrays(communicator, memory, choose)
    options = net_options or NetOptions(data=DataOptions(default_worker_count(communicator.local_size)))
    try:
        solver = create_solver(
            parameter,
            backend=create_backend(backend),
            rank=communicator.rank,
            size=communicator.size,
            seed=seed,
            ranks=ranks,
            net_options=options if ranks is None else replace(options, allocate=arrays),
        )
    except OtherRankFailedError:
        raise
    except BaseException:
        communicator.allgather_objects(False)  # the others wait for it in `_meet`
        raise
    if ranks is not None:
        _meet(communicator)
        _join(solver, ranks, memory, arrays.choice_of(solver.net.parameters.diff.count), gradient_dtype, roots)
        set_batch_norm(solver.net, ranks, batch_norm)
    return solver


def _meet(communicator: Communicator) -> None:
    """Go on when all ranks are here. OtherRankFailedError if one of them has told that it cannot go on."""
    if not all(communicator.allgather_objects(True)):
        raise OtherRankFailedError(
            f"rank {communicator.rank} of {communicator.size}: another rank could not make its solver"
        )


class _Arrays:
    """Makes the flat arrays of this rank, in memory that suits the exchange; which that is may depend on their size."""

    def __init__(self, communicator: Communicator, memory: ExchangeMemory, choose: Callable[[int], Choice]) -> None:
        self._communicator, self._memory, self._choose = communicator, memory, choose
        self._choice: Choice | None = None

    def __call__(self, name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        """See :data:`paratrain.net.Allocator`; the gradients come first."""
        if name == "statistics":
            return SyncedMemory(count, dtype)
        if name == "diff":
            _meet(self._communicator)
            self._choice = self._choose(count * _ITEM_BYTES)
            self._memory.is_shared &= uses_shared_memory(self._choice.name, self._communicator)
        array = self._memory.data(count, dtype) if name == "data" else self._memory.diff(count, dtype)
        return SyncedMemory(count, dtype, host=array)

    def choice_of(self, count: int) -> Choice:
        """The exchange for gradients of `count` values, once the arrays are made: where there was no memory to share, that
        may be another than was thought before.
        """
        if self._choice is None or self._memory.problem:
            return self._choose(count * _ITEM_BYTES)
        return self._choice


def _join(
    solver: Solver, ranks: TreeRanks, memory: ExchangeMemory, choice: Choice, gradient_dtype: str, roots: int | None
) -> None:
    communicator, name = ranks.communicator, choice.name
    is_one_node = len(set(communicator.node_of_rank)) == 1
    ranks.parameters_are_common = memory.is_shared and is_one_node
    slices = find_slices(solver.net, slice_length(name, communicator, roots))
    parts = [found.part for found in slices]
    exchange = create_exchange(name, communicator, memory, parts, ranks.tree, gradient_dtype, roots)
    way = "by messages" + (f" ({memory.problem})" if memory.problem else "")
    if memory.is_shared:
        way = "through shared memory" + ("" if is_one_node else " within nodes and by messages between them")
    are_sent = not (memory.is_shared and is_one_node)
    way += describe_gradients(gradient_dtype, are_sent=are_sent)
    if gradient_dtype == "float16" and are_sent:
        solver.sentinel.overflow_hint = OVERFLOW_HINT
    driver = DataParallel(solver, ranks, exchange, slices, way)
    driver.choice, driver.gradient_dtype = choice, gradient_dtype if are_sent else "float32"
    solver.times.predicted_step_s = choice.predicted_s
    communicator.barrier()  # nobody begins to train before all have put their first parameters where others may see them


def exchanged_bytes(net: Net, size: int, sent: str = "float32") -> tuple[int, int]:
    """Predict the bytes that a step sends over each link of a tree of ``size`` ranks: (down, up); (0, 0) for one rank.

    Down go the parameters and the running statistics, up come the gradients, as the dtype ``sent``, each once over each of
    size - 1 links.
    """
    if size == 1:
        return 0, 0
    parameters = net.parameters
    item_bytes = np.dtype(parameters.dtype).itemsize
    gradient_bytes = item_bytes if sent == "float32" else gradient_dtype_of(sent).itemsize
    return (parameters.data.count + parameters.statistics.count) * item_bytes, parameters.diff.count * gradient_bytes
