"""The options that say how ranks exchange gradients and parameters."""

from __future__ import annotations

import argparse

from paratrain.comm.choose import AUTO, EXCHANGES, check_on_cpu
from paratrain.comm.nccl import NCCL
from paratrain.launch import options

__all__ = ["add_exchange", "wanted_exchange"]


def add_exchange(parser: argparse.ArgumentParser) -> None:
    """Add ``--exchange`` and ``--roots``."""
    options.add(
        parser,
        "exchange",
        type=_exchange,
        metavar=f"{{{','.join((AUTO, *EXCHANGES, NCCL))}}}",
        help="how ranks exchange gradients: auto: the way that is predicted to be the fastest (default; with --topology: tree); "
        "tree: up a tree to one root, which updates; sharded: every rank, or as many as --roots says, updates a part; ring: as "
        "sharded, each rank talking to two neighbours; mpi: MPI's Allreduce, and every rank updates all; nccl: NVIDIA's library, "
        "where each rank has a GPU of its own",
    )
    parser.add_argument(
        "--roots",
        type=options.positive,
        metavar="K",
        help="with --exchange sharded: how many ranks update a part, and hold what the solver remembers of it (default: all)",
    )


def wanted_exchange(arguments: argparse.Namespace, *, on_gpus: bool = False) -> str:
    """What ``--exchange`` says; where it says nothing, the saved tree if there is one, and else AUTO.

    CommunicationError if it is one for GPUs, and the run is not `on_gpus`.
    """
    if arguments.exchange is not None:
        if not on_gpus:
            check_on_cpu(arguments.exchange)
        return str(arguments.exchange)
    return AUTO if arguments.topology is None else "tree"


def _exchange(name: str) -> str:
    """One of EXCHANGES, AUTO or NCCL."""
    if name not in (AUTO, *EXCHANGES, NCCL):
        raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join((AUTO, *EXCHANGES, NCCL))}")
    return name
