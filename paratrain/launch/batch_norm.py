"""The option that says how ranks normalize batches together."""

from __future__ import annotations

import argparse

from paratrain.data_parallel.batch_norm import BATCH_NORM_MODES
from paratrain.launch import options

__all__ = ["add_batch_norm"]


def add_batch_norm(parser: argparse.ArgumentParser) -> None:
    """Add ``--bn``."""
    options.add(
        parser,
        "bn",
        choices=tuple(BATCH_NORM_MODES),
        default="root",
        help="BatchNorm and BN on several ranks: the root's running statistics count (root, default), their average over the "
        "ranks counts (average), or mean and variance are taken over the batches of all ranks (sync)",
    )
