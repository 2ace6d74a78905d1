"""The options of ``train`` about whose batch the prototxt gives: `--batch-mode` and `--batch-ranks`."""

from __future__ import annotations

import argparse

from paratrain.errors import SolverError
from paratrain.launch import options
from paratrain.proto import NetParameter, SolverParameter
from paratrain.solvers.batches import divide_batches, plan_passes, share_batches
from paratrain.solvers.nets import train_net_choice

__all__ = ["add_batches", "batch_editor", "set_passes"]


def add_batches(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-mode`` and ``--batch-ranks``."""
    parser.add_argument(
        "--batch-mode",
        choices=("per_rank", "global"),
        default="per_rank",
        help="whose batch_size the prototxt gives: that of each rank (default), or that of all, to be divided by them",
    )
    options.add(
        parser,
        "batch-ranks",
        type=options.positive,
        metavar="N",
        help="the prototxt's batch_size is that of one of N ranks, whatever their number now: larger or smaller batches, or "
        "another iter_size, keep the records of each step",
    )


def set_passes(arguments: argparse.Namespace, parameter: SolverParameter, rank_count: int) -> int:
    """Give the solver the ``iter_size`` that ``--batch-ranks`` asks for; return the one it had. Raises SolverError."""
    planned = parameter.iter_size
    if arguments.batch_ranks is not None:
        if arguments.batch_mode == "global":
            raise SolverError(
                "--batch-ranks goes with batches per rank; with --batch-mode global they follow the ranks anyway"
            )
        net = train_net_choice(parameter).parameter()
        parameter.iter_size = plan_passes(net, arguments.batch_ranks, rank_count, planned)
    return planned


def batch_editor(
    arguments: argparse.Namespace, net: NetParameter, rank_count: int, planned_passes: int, passes: int
) -> NetParameter:
    """Return the net to train with the batches that the options ask for."""
    if arguments.batch_mode == "global":
        return divide_batches(net, rank_count)
    if arguments.batch_ranks is not None:
        return share_batches(net, arguments.batch_ranks, rank_count, planned_passes, passes)
    return net
