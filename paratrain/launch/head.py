"""The numbers of a run, in the head of its log."""

from __future__ import annotations

import logging

from paratrain.comm.communicator import Communicator
from paratrain.data_parallel import DataParallel, TreeRanks, exchanged_bytes
from paratrain.data_parallel.batch_norm import describe_batch_norm
from paratrain.launch.rank_gpus import RankGpus
from paratrain.launch.rank_tree import describe_tree
from paratrain.solvers import Solver

__all__ = ["log_head"]

logger = logging.getLogger(__name__)


def log_head(solver: Solver, communicator: Communicator, tree: str, gpus: RankGpus) -> None:
    """Log ranks and devices, the effective batch, records and epochs, parameters, and what a step exchanges.

    `tree` says by which tree they do, unless that of the exchange follows the links of GPUs.
    """
    parameter, size = solver.parameter, communicator.size
    nodes = len(set(communicator.node_of_rank))
    where = f"on {_count(len(gpus.ranks_of_gpu), 'GPU')}" if gpus.is_on_gpus else "each on the CPU"
    logger.info("Ranks: %d on %s, %s", size, _count(nodes, "node"), where)
    if size > 1:
        choice = solver.shares.choice if isinstance(solver.shares, DataParallel) else None
        planned = None if choice is None else choice.tree
        logger.info("Tree: %s", tree if planned is None else f"{describe_tree(planned)} (by the links of the GPUs)")
    batch = solver.images_per_iteration // (parameter.iter_size * size)
    logger.info(
        "Effective batch: %d images = batch_size %d x iter_size %d x %d ranks",
        solver.images_per_iteration, batch, parameter.iter_size, size,
    )  # fmt: skip
    for layer, tops in zip(solver.net.layers, solver.net.tops, strict=True):
        if layer.is_data and layer.record_count and tops and tops[0].shape:
            per_epoch = layer.record_count / (tops[0].shape[0] * parameter.iter_size * size)
            logger.info(
                "Records: %d in layer '%s', %.6g iterations an epoch; max_iter %d is %.4g epochs",
                layer.record_count, layer.name, per_epoch, parameter.max_iter, parameter.max_iter / per_epoch,
            )  # fmt: skip
    parameters = solver.net.parameters
    logger.info(
        "Parameters: %d learnable values in %s, %d values of running statistics",
        parameters.data.count, _count(len(parameters.learnable), "blob"), parameters.statistics.count,
    )  # fmt: skip
    if isinstance(solver.shares, DataParallel):
        choice = solver.shares.choice
        if choice is not None and choice.is_automatic:
            logger.info("Exchange auto: %s", choice.describe())
        down, up = exchanged_bytes(solver.net, size, solver.shares.gradient_dtype)
        logger.info(
            "Exchange: %s, in %s; in every step %s of gradients of each rank, and %s of parameters for it",
            solver.shares.description, _count(solver.shares.slice_count, "slice"), _bytes(up), _bytes(down),
        )  # fmt: skip
    if isinstance(solver.ranks, TreeRanks) and (batch_norm := describe_batch_norm(solver.net, solver.ranks)):
        logger.info("Batch normalization: %s", batch_norm)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _bytes(count: int) -> str:
    value, units = float(count), ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g} {units[0]}"
