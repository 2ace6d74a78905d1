"""Sending gradients in 16 bits: with which exchanges, and what a log says of it."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.comm.nccl import NCCL
from paratrain.errors import SolverError

__all__ = ["OVERFLOW_HINT", "check_gradient_dtype", "describe_gradients"]

OVERFLOW_HINT = "; or a gradient is too large for float16, which ends at 65,504, while bfloat16 goes as far as float32"
"""What else a sum that is not finite can come from."""


def check_gradient_dtype(gradient_dtype: str, exchange: str, possible: Sequence[str]) -> tuple[str, ...]:
    """Return those of the ``possible`` exchanges that can send gradients as ``gradient_dtype``.

    Raises SolverError where ``exchange``, which is wanted, cannot.
    """
    if gradient_dtype == "float32":
        return tuple(possible)
    if exchange == "mpi":
        raise SolverError(
            f"gradients are to be sent as {gradient_dtype} and summed in float32, and MPI's Allreduce sums what it sends: "
            "train with --exchange sharded or ring, or without --exchange-dtype"
        )
    if exchange == NCCL:
        raise SolverError(
            f"gradients are to be sent as {gradient_dtype} and summed in float32, and NCCL sums what it sends: train with "
            "--exchange sharded or tree, or without --exchange-dtype"
        )
    return tuple(name for name in possible if name not in ("mpi", NCCL))


def describe_gradients(gradient_dtype: str, *, are_sent: bool) -> str:
    """What follows the way of an exchange in the log: nothing for float32."""
    if gradient_dtype == "float32":
        return ""
    if not are_sent:
        return f" (where nothing is sent, and {gradient_dtype} changes nothing)"
    return f", gradients sent as {gradient_dtype} and summed in float32"
