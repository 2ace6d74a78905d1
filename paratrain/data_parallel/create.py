"""From settings to a solver that trains together with those of the other ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from paratrain.backends import Backend, create_backend
from paratrain.blob import Memory, SyncedMemory
from paratrain.comm import Communicator
from paratrain.data.options import DataOptions, default_worker_count
from paratrain.data_parallel.automatic import Choice
from paratrain.data_parallel.batch_norm import set_batch_norm
from paratrain.data_parallel.driver import DataParallel
from paratrain.data_parallel.gradient_dtype import OVERFLOW_HINT, describe_gradients
from paratrain.data_parallel.ranks import TreeRanks, join_ranks
from paratrain.data_parallel.slices import find_slices
from paratrain.data_parallel.ways import ExchangeSettings, FindMachine, HostWay, Way
from paratrain.dtypes import dtype_named
from paratrain.errors import OtherRankFailedError
from paratrain.net import Net
from paratrain.proto import SolverParameter
from paratrain.random import entropy
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.factory import SOLVERS
from paratrain.solvers.nets import NetOptions
from paratrain.topology.machine import Machine
from paratrain.topology.tree import Tree

__all__ = ["create_parallel_solver", "exchanged_bytes"]


def create_parallel_solver(
    parameter: SolverParameter,
    communicator: Communicator,
    *,
    backend: Backend | str | None = None,
    net_options: NetOptions | None = None,
    tree: Tree | None = None,
    exchange: str = "tree",
    roots: int | None = None,
    shares_parameters: bool = True,
    machine: Machine | None = None,
    find_machine: FindMachine | None = None,
    gradient_dtype: str = "float32",
    batch_norm: str = "root",
) -> Solver:
    """Return this rank's solver, joined to those of the other ranks by ``tree`` (see :func:`join_ranks`).

    ``exchange`` is one of :data:`paratrain.comm.choose.EXCHANGES`, or AUTO for the one of them that is predicted to be the
    fastest; between GPUs also "nccl". ``machine``, if rank 0 gives one, may have better figures of links than the catalogue.
    ``shares_parameters`` lets the ranks of a node use one array of parameters, where the exchange can: what any of them writes
    there, all see. All ranks call it with the same parameter, tree and exchange, and backends of one kind. A negative
    ``random_seed`` is drawn by rank 0 for all ranks. Raises SolverError where the exchange cannot serve the parameter,
    CommunicationError where it cannot serve the ranks.

    Ranks that compute on GPUs exchange between these. ``find_machine(bytes)`` is called on the first rank of each node, with the
    bytes of the gradients, and gives the node's GPUs and links, rank for rank; the tree of the exchange within one node then
    follows these, unless there is a ``machine``, for which ``tree`` was planned.

    ``roots`` says how many ranks "sharded" updates on, each a part of its own with what the solver remembers of it: from 1 to
    as many as there are, which is the default. CommunicationError for another number, and with another exchange.

    Messages carry gradients as ``gradient_dtype``, one of :data:`paratrain.comm.gradient_messages.GRADIENT_DTYPES`; they are
    summed in float32. ``batch_norm`` is one of :data:`paratrain.data_parallel.batch_norm.BATCH_NORM_MODES`.
    """
    settings = ExchangeSettings(
        exchange,
        roots,
        gradient_dtype,
        shares_parameters,
        parameter.debug_info,
        SOLVERS.get(parameter.type).history_count,
        machine,
    )
    used = backend if isinstance(backend, Backend) else create_backend(backend)
    seed = parameter.random_seed
    if seed < 0:
        seed = communicator.broadcast_object(entropy())
    ranks = join_ranks(communicator, tree) if communicator.size > 1 else None
    way: Way
    if used.device is None:
        way = HostWay(communicator, settings, None if ranks is None else ranks.tree)
    else:
        from paratrain.data_parallel.device_way import DeviceWay  # much to load, for runs on GPUs alone

        way = DeviceWay(communicator, settings, None if ranks is None else ranks.tree, used, find_machine)
    arrays = _Arrays(communicator, way)
    options = net_options or NetOptions(data=DataOptions(default_worker_count(communicator.local_size)))
    try:
        solver = create_solver(
            parameter,
            backend=used,
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
        _join(solver, ranks, way, arrays.choice_of(solver.net.parameters.diff.count), gradient_dtype)
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

    def __init__(self, communicator: Communicator, way: Way) -> None:
        self._communicator, self._way = communicator, way
        self._choice: Choice | None = None

    def __call__(self, name: str, count: int, dtype: npt.DTypeLike) -> Memory:
        """See :data:`paratrain.net.Allocator`; the gradients come first."""
        if name == "statistics":
            return SyncedMemory(count, dtype)
        if name == "diff":
            _meet(self._communicator)
            self._choice = self._way.choose(count * np.dtype(dtype).itemsize)
            self._way.take(self._choice)
        return self._way.array(name, count, dtype)

    def choice_of(self, count: int) -> Choice:
        """The exchange for gradients of `count` values, once the arrays are made: where there was no memory to share, that
        may be another than was thought before.
        """
        if self._choice is None or self._way.problem:
            return self._way.choose(count * np.dtype(np.float32).itemsize)
        return self._choice


def _join(solver: Solver, ranks: TreeRanks, way: Way, choice: Choice, gradient_dtype: str) -> None:
    ranks.parameters_are_common = way.has_common_parameters
    slices = find_slices(solver.net, way.slice_length(choice.name))
    exchange = way.exchange(choice.name, [found.part for found in slices], choice.tree or ranks.tree)
    words = way.describe() + describe_gradients(gradient_dtype, are_sent=way.are_sent)
    if gradient_dtype == "float16" and way.are_sent:
        solver.sentinel.overflow_hint = OVERFLOW_HINT
    driver = DataParallel(solver, ranks, exchange, slices, words)
    driver.way = way
    driver.choice, driver.gradient_dtype = choice, gradient_dtype if way.are_sent else "float32"
    solver.times.predicted_step_s = choice.predicted_s
    ranks.communicator.barrier()  # nobody begins to train before all have put their first parameters where others may see them


def exchanged_bytes(net: Net, size: int, sent: str = "float32") -> tuple[int, int]:
    """Predict the bytes that a step sends over each link of a tree of ``size`` ranks: (down, up); (0, 0) for one rank.

    Down go the parameters and the running statistics, up come the gradients, as the dtype ``sent``, each once over each of
    size - 1 links.
    """
    if size == 1:
        return 0, 0
    parameters = net.parameters
    item_bytes = np.dtype(parameters.dtype).itemsize
    gradient_bytes = item_bytes if sent == "float32" else dtype_named(sent).itemsize
    return (parameters.data.count + parameters.statistics.count) * item_bytes, parameters.diff.count * gradient_bytes
