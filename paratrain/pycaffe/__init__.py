"""The module-level names of pycaffe: ``import paratrain as caffe``.

A script run by itself is one rank. The same script under ``mpirun`` is started once for every rank:
``get_solver(...).solve()`` then trains on all of them, and ``solver_rank()`` tells which one this is.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from paratrain import log
from paratrain import net as core
from paratrain.activity import Activity
from paratrain.backends import create_backend
from paratrain.comm import Communicator
from paratrain.comm.watch import watch_ranks
from paratrain.data_parallel import create_parallel_solver
from paratrain.errors import SolverError
from paratrain.launch.abort import agreed, connect, install_excepthook
from paratrain.launch.cores import take_cores
from paratrain.layers import LAYERS
from paratrain.layers.base import LayerContext
from paratrain.layers.python import UserLayer as Layer
from paratrain.proto import TEST, TRAIN, NetParameter, SolverParameter, read_prototxt, upgrade_net
from paratrain.random import entropy
from paratrain.solvers import NetOptions, Solver, read_solver
from paratrain.watching.settings import WatchSettings

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Layer",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
    "init_log",
    "layer_type_list",
    "root_solver",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "solver_count",
    "solver_rank",
]


@dataclass
class _Choices:
    """What the ``set_`` functions have chosen for nets and solvers made from now on."""

    seed: int | None = None


_choices = _Choices()


class Net(core.Net):
    """``Net(file, phase, weights=..., level=0, stages=None)``: the network of a prototxt file.

    pycaffe's older form ``Net(file, weights, phase)`` works as well. Parameters have the values of their fillers until
    weights are copied in. Every blob keeps its value after ``forward()``. Raises PrototxtError, NetError, SnapshotError.
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str],
        *args: object,
        phase: int | None = None,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
    ) -> None:
        for value in args:
            if isinstance(value, int):
                phase = value
            elif isinstance(value, (str, os.PathLike)):
                weights = value
            else:
                raise TypeError(f"Net(file, phase, weights=...): cannot use {value!r}")
        if phase is None:
            raise TypeError("Net(file, phase, weights=...): phase is missing; give paratrain.TRAIN or paratrain.TEST")
        if phase not in (TRAIN, TEST):
            raise ValueError(
                f"Net(file, phase, weights=...): there is no phase {phase}; give paratrain.TRAIN or paratrain.TEST"
            )
        parameter = upgrade_net(read_prototxt(network_file, NetParameter))
        seed = entropy() if _choices.seed is None else _choices.seed
        context = LayerContext(
            backend=create_backend(), phase=TEST if phase == TEST else TRAIN, seed=seed, keeps_arrays=True
        )
        super().__init__(parameter, context, level=level, stages=stages or ())
        if weights is not None:
            self.copy_from(os.fspath(weights))


@functools.cache
def _world() -> Communicator:
    """The ranks this script was started with; looked for once, when the first solver is made or asked about."""
    communicator = connect()
    if communicator.size > 1:
        install_excepthook(communicator)
    take_cores(communicator, pin=False)  # where a script's other threads run is its own affair
    return communicator


@functools.cache
def _activity() -> Activity:
    """Where this rank says what it is doing. From its first solver on it is watched, but never ended for a long wait: a
    script may have reasons to let the others wait.
    """
    activity = Activity()
    watch_ranks(_world(), activity, WatchSettings(abort_s=0))
    return activity


def get_solver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver that a solver prototxt describes; its ``type`` says which. Under mpirun it is one of many.

    On several ranks an error ends all of them, reported once; on one rank it is raised.
    """
    return _make_solver(solver_file, None)


def SGDSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type SGD."""
    return _make_solver(solver_file, "SGD")


def NesterovSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type Nesterov."""
    return _make_solver(solver_file, "Nesterov")


def AdaGradSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type AdaGrad."""
    return _make_solver(solver_file, "AdaGrad")


def RMSPropSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type RMSProp."""
    return _make_solver(solver_file, "RMSProp")


def AdaDeltaSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type AdaDelta."""
    return _make_solver(solver_file, "AdaDelta")


def AdamSolver(solver_file: str | os.PathLike[str]) -> Solver:
    """Return the solver of a solver prototxt, which must be one of type Adam."""
    return _make_solver(solver_file, "Adam")


def _make_solver(solver_file: str | os.PathLike[str], kind: str | None) -> Solver:
    def read() -> SolverParameter:
        parameter = read_solver(solver_file)
        if kind not in (None, parameter.type):
            raise SolverError(
                f"{os.fspath(solver_file)}: type is '{parameter.type}', not '{kind}'; use get_solver(...)"
            )
        if parameter.random_seed < 0 and _choices.seed is not None:
            parameter.random_seed = _choices.seed
        return parameter

    world = _world()  # first: from now on an error on one rank ends all
    options = NetOptions(activity=_activity(), keeps_arrays=True)
    if world.size == 1:
        return create_parallel_solver(read(), world, net_options=options)
    parameter = agreed(world, read)
    # Scripts may do the same to the parameters on every rank, so that each has its own.
    return agreed(world, lambda: create_parallel_solver(parameter, world, net_options=options, shares_parameters=False))


def init_log(level: int = logging.INFO) -> None:
    """Show the log on stderr in Caffe's form from now on; of many ranks only the root's, and everybody's warnings."""
    log.init_log(level if root_solver() else max(level, logging.WARNING))


def set_mode_cpu() -> None:
    """Compute on the CPU, which is what this version does anyway."""


def set_mode_gpu() -> None:
    """Ask for GPU mode. This version has no GPU backend: it warns and goes on with the CPU."""
    warnings.warn("set_mode_gpu(): this version of paratrain computes on the CPU only, and does so now", stacklevel=2)


def set_device(device: int) -> None:
    """Choose a GPU. This version has no GPU backend: it warns and goes on with the CPU."""
    warnings.warn(f"set_device({device}): this version of paratrain computes on the CPU only", stacklevel=2)


def set_random_seed(seed: int) -> None:
    """Fix the random numbers of nets and solvers made from now on (a solver's own ``random_seed`` comes first)."""
    _choices.seed = seed


def solver_count() -> int:
    """The number of ranks that train together."""
    return _world().size


def solver_rank() -> int:
    """The number of this rank, from 0."""
    return _world().rank


def root_solver() -> bool:
    """Whether this rank is the root, which updates, logs and snapshots."""
    return solver_rank() == 0


def layer_type_list() -> list[str]:
    """The layer types that a prototxt may name."""
    return LAYERS.names()
