"""The option that says how ranks exchange gradients and parameters."""

from __future__ import annotations

import argparse

from paratrain.comm.choose import EXCHANGES
from paratrain.launch import options

__all__ = ["add_exchange"]


def add_exchange(parser: argparse.ArgumentParser) -> None:
    """Add ``--exchange``."""
    options.add(
        parser,
        "exchange",
        choices=EXCHANGES,
        default="tree",
        help="how ranks exchange gradients: up a tree to one root, which updates (default); sharded: every rank updates a part; "
        "ring: the same, each rank talking to two neighbours; mpi: MPI's Allreduce, and every rank updates all",
    )
