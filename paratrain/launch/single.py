"""What ``test`` and ``time`` share: one net from a file, on one rank or on each of several."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from paratrain.backends import Backend, create_backend
from paratrain.comm.communicator import Communicator
from paratrain.data_parallel import TreeRanks, join_ranks
from paratrain.launch import options
from paratrain.launch.abort import agreed, connect, guard
from paratrain.launch.computing import near_cores, open_backend
from paratrain.launch.cores import take_cores
from paratrain.launch.device import choose
from paratrain.launch.rank_gpus import RankGpus
from paratrain.launch.reports import report_rank
from paratrain.layers.base import LayerContext
from paratrain.log import init_log
from paratrain.net import Net
from paratrain.net.device_errors import telling_device_errors
from paratrain.proto import NetParameter, NetState, Phase, read_prototxt, upgrade_net
from paratrain.random import entropy
from paratrain.solvers.feeding import log_bad_records
from paratrain.solvers.ranks import Alone, Ranks
from paratrain.solvers.testing import can_be_dealt

__all__ = ["Opened", "run_on_ranks"]

logger = logging.getLogger(__name__)


@dataclass
class Opened:
    """A rank's net, and the ranks that take part."""

    net: Net
    ranks: Ranks
    tree: TreeRanks | None
    """The ranks again, where they are several."""
    is_shared: bool
    """The batches of this TEST net are dealt out to the ranks."""
    open_net: Callable[[str], Net]
    """Opens the net once more, on the backend of a name. It is the caller's, who closes it."""

    def close(self) -> None:
        """Close the net."""
        self.net.close()


def run_on_ranks(arguments: argparse.Namespace, phase: Phase, work: Callable[[Opened], None]) -> int:
    """Open the net of ``-model`` in ``phase``, with the weights of ``-weights`` if there are some, and call ``work``, on
    every rank; return the exit code. An error ends all ranks.
    """
    communicator = connect()
    report_rank(communicator)
    init_log(logging.INFO if communicator.rank == 0 else logging.WARNING)
    computing = agreed(communicator, lambda: choose(arguments, local_rank=communicator.local_rank))
    arguments.cores = take_cores(
        communicator, arguments.threads, pin=arguments.pin == "auto", near=near_cores(communicator, computing)
    )
    gpus = RankGpus.gather(communicator, computing)
    seed = communicator.broadcast_object(entropy())
    backend = agreed(communicator, lambda: open_backend(arguments, communicator, gpus))
    opened = agreed(communicator, lambda: _open(arguments, phase, communicator, seed, backend))
    with guard(communicator), contextlib.closing(opened), telling_device_errors(backend, opened.net.context.activity):
        work(opened)
        log_bad_records([opened.net], opened.ranks)
    communicator.close()
    return 0


def _open(
    arguments: argparse.Namespace, phase: Phase, communicator: Communicator, seed: int, backend: Backend
) -> Opened:
    parameter = upgrade_net(read_prototxt(arguments.file or arguments.model, NetParameter), logger.info)
    parameter.state.MergeFrom(NetState(phase=phase))
    options.set_state(parameter.state, arguments)
    rank, size = communicator.rank, communicator.size
    is_shared = size > 1 and can_be_dealt(parameter)
    tree = join_ranks(communicator) if size > 1 else None

    def open_net(backend: Backend) -> Net:
        context = LayerContext(
            backend,
            phase,
            seed=seed,
            rank=rank,
            size=size,
            allow_python=arguments.allow_python,
            deal=(rank, size) if is_shared else (0, 1),
            data=options.data_options(arguments, arguments.cores[rank].worker_count),
        )
        net = Net(parameter, context)
        try:
            if arguments.weights is not None:
                options.load_all(net, arguments.weights, options.copy_rules(arguments))
        except BaseException:
            net.close()
            raise
        return net

    net = open_net(backend)
    precision = arguments.precision or "float32"
    return Opened(net, tree or Alone(), tree, is_shared, lambda name: open_net(create_backend(name, precision)))
