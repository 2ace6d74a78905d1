"""The log, switched on by scripts."""

from __future__ import annotations

import logging
import os

from paratrain import log as core
from paratrain.comm.environment import launcher_environment
from paratrain.pycaffe.ranks import choices

__all__ = ["init_log", "log"]

_GLOG_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)

_LEVEL_VARIABLE = "GLOG_minloglevel"  # glog spells it so

log = core.log


def init_log(level: int | None = None, stderr: bool = True) -> None:  # noqa: ARG001
    """Show the log on stderr in Caffe's form from now on; of many ranks only the root's, and everybody's warnings.

    ``level`` is glog's, 0 (information) to 3 (fatal errors), or one of Python's logging; where it is not given, that of the
    environment variable GLOG_minloglevel, else 0. ``stderr`` is there because pycaffe has it: the log always goes there.
    """
    if level is None:
        given = os.environ.get(_LEVEL_VARIABLE, "")
        level = int(given) if given.isascii() and given.isdigit() else 0
    wanted = _GLOG_LEVELS[level] if 0 <= level < len(_GLOG_LEVELS) else level
    launcher = launcher_environment(os.environ)  # the ranks need not know each other for this
    rank = choices.solver_rank if choices.solver_rank is not None else 0 if launcher is None else launcher.rank
    core.init_log(wanted if rank == 0 else max(wanted, logging.WARNING))
