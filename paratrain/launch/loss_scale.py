"""The option that says what the loss is multiplied by."""

from __future__ import annotations

import argparse

from paratrain.errors import SolverError
from paratrain.solvers import Solver
from paratrain.solvers.loss_scale import DYNAMIC, LossScale

__all__ = ["add_loss_scale", "set_loss_scale"]


def add_loss_scale(parser: argparse.ArgumentParser) -> None:
    """Add ``--loss-scale``."""
    parser.add_argument(
        "--loss-scale",
        type=_checked,
        metavar=f"{DYNAMIC}|N",
        help="multiply the loss by N before backward, and divide the gradients by it in the update, so that small ones are not 0 "
        f"in float16; {DYNAMIC} begins at 65536, halves it after a step whose gradient is not finite, which is left out, and "
        f"doubles it after 2000 others (default: {DYNAMIC} with --precision float16, else 1)",
    )


def set_loss_scale(arguments: argparse.Namespace, solver: Solver) -> None:
    """Use what ``--loss-scale`` says, if it is given; before a snapshot is restored, which may know better."""
    if arguments.loss_scale is not None:
        solver.use_loss_scale(LossScale.of(arguments.loss_scale))


def _checked(text: str) -> str:
    try:
        LossScale.of(text)
    except SolverError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
