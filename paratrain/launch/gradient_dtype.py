"""The option that says in which form gradients are sent."""

from __future__ import annotations

import argparse

from paratrain.comm.gradient_messages import GRADIENT_DTYPES
from paratrain.launch import options

__all__ = ["add_gradient_dtype"]


def add_gradient_dtype(parser: argparse.ArgumentParser) -> None:
    """Add ``--exchange-dtype``."""
    options.add(
        parser,
        "exchange-dtype",
        choices=GRADIENT_DTYPES,
        default="float32",
        help="how gradients are sent between ranks: float32 (default), or rounded to 16 bits and summed in float32",
    )
