"""Solver prototxt files."""

from __future__ import annotations

import logging
import os

from paratrain.proto import SolverParameter, read_prototxt, upgrade_solver

__all__ = ["read_solver"]

logger = logging.getLogger(__name__)


def read_solver(path: str | os.PathLike[str]) -> SolverParameter:
    """Read a solver prototxt of any age; a ``snapshot_prefix`` that it leaves out is made from its own name, as in Caffe.

    Raises PrototxtError, and SolverError for a file that gives its type twice.
    """
    return upgrade_solver(read_prototxt(path, SolverParameter), path, logger.info)
