"""From what a rank is to compute on to its backend, with what the log says of it."""

from __future__ import annotations

import argparse
import logging

from paratrain.backends import Backend
from paratrain.comm.communicator import Communicator
from paratrain.data_parallel.ways import FindMachine
from paratrain.errors import DeviceError
from paratrain.launch.cores import log_cores
from paratrain.launch.device import Computing, choose, count_ranks
from paratrain.launch.rank_gpus import RankGpus
from paratrain.topology.machine import Machine

__all__ = ["near_cores", "node_links", "open_alone", "open_backend"]

logger = logging.getLogger(__name__)


def near_cores(communicator: Communicator, computing: Computing) -> tuple[int, ...]:
    """The CPUs near this rank's GPU, for ranks that divide those of a machine; none where nobody knows, or it is alone."""
    if computing.gpu is None or communicator.local_size == 1:
        return ()
    from paratrain.launch.gpu_links import cpus_near

    return cpus_near(computing.gpu)


def open_backend(arguments: argparse.Namespace, communicator: Communicator, gpus: RankGpus) -> Backend:
    """Make this rank's backend, on its GPU if it has one. The root logs what all compute on, and on which cores.

    Raises DeviceError, on all ranks, where some have a GPU and others have none.
    """
    if problem := gpus.check():
        raise DeviceError(problem)
    own = gpus.places[communicator.rank]
    backend = own.create_backend(arguments.precision, fast=arguments.fast, autotune=arguments.autotune)
    if communicator.rank > 0:
        return backend
    if own.gpu is None:
        logger.info("Use CPU, %s. (%s)", backend.description, own.reason)
        _compare_rank_count(arguments, communicator.size)
    else:
        logger.info("Use %s.", backend.description)
        if communicator.size > 1:
            gpus.log(arguments.gpu)
    log_cores(arguments.cores)
    return backend


def open_alone(arguments: argparse.Namespace) -> Backend:
    """Make the backend of a command that one process runs, and log what it computes on."""
    computing = choose(arguments)
    backend = computing.create_backend(arguments.precision, fast=arguments.fast, autotune=arguments.autotune)
    if computing.gpu is None:
        logger.info("Use CPU, %s. (%s)", backend.description, computing.reason)
    else:
        logger.info("Use %s.", backend.description)
    return backend


def node_links(communicator: Communicator, gpus: RankGpus) -> FindMachine:
    """What finds this node's GPUs and their links; links that nobody has tested yet are tested, once for each machine."""

    def find() -> Machine:
        from paratrain.topology.sources.find import find_machine  # much to load, for runs on several GPUs

        return find_machine(environment={}, ask_cuda=lambda: None)

    def check(machine: Machine, byte_count: int) -> Machine:
        from paratrain.launch.link_check import check_before_training

        plan = check_before_training(communicator, machine, byte_count)
        return machine if plan is None else plan.machine

    from paratrain.launch.gpu_links import links_of_ranks

    return links_of_ranks(communicator, gpus, find, check)


def _compare_rank_count(arguments: argparse.Namespace, rank_count: int) -> None:
    """Under a launcher the ranks are there already: say so where ``--cpu -gpu`` lists another number."""
    if arguments.gpu is not None and (listed_count := count_ranks(arguments.gpu, arguments.cpu)) != rank_count:
        logger.warning(
            "-gpu %s asks for %d ranks, and the launcher has started %d, which train; leave the launcher out, or start %d",
            arguments.gpu,
            listed_count,
            rank_count,
            listed_count,
        )
