"""Solvers as scripts make them: from a file, each joined to those of the other ranks."""

from __future__ import annotations

import os
import warnings

from paratrain import solvers as core
from paratrain.data_parallel import create_parallel_solver
from paratrain.launch.abort import agreed
from paratrain.proto import SolverParameter
from paratrain.pycaffe import ranks
from paratrain.pycaffe.modes import new_backend, note_made
from paratrain.solvers import NetOptions, read_solver

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
]

Path = str | os.PathLike[str]


def get_solver(solver_file: Path) -> core.Solver:
    """Return the solver that a solver prototxt describes; its ``type`` says which. Under mpirun it is one of many.

    On several ranks an error ends all of them, reported once; on one rank it is raised.
    """
    return _make_solver(solver_file, None)


class _SolverType(type):
    """Calling the class gives the solver that does the work; ``isinstance`` asks for its type."""

    solver_type: str

    def __call__(cls, solver_file: Path) -> core.Solver:
        return _make_solver(solver_file, cls.solver_type)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, core.Solver) and instance.parameter.type == cls.solver_type


class _NamedSolver(metaclass=_SolverType):
    """Not to be derived from further: a class of one's own keeps a solver as an attribute."""

    def __init_subclass__(cls, solver_type: str = "") -> None:
        if not solver_type:
            raise TypeError(
                f"{cls.__name__} cannot derive from a solver: keep one, self.solver = get_solver(...), instead"
            )
        cls.solver_type = solver_type


class SGDSolver(_NamedSolver, solver_type="SGD"):
    """``SGDSolver(solver_file)``: the solver of a solver prototxt, of type SGD whatever it says."""


class NesterovSolver(_NamedSolver, solver_type="Nesterov"):
    """``NesterovSolver(solver_file)``: the solver of a solver prototxt, of type Nesterov whatever it says."""


class AdaGradSolver(_NamedSolver, solver_type="AdaGrad"):
    """``AdaGradSolver(solver_file)``: the solver of a solver prototxt, of type AdaGrad whatever it says."""


class RMSPropSolver(_NamedSolver, solver_type="RMSProp"):
    """``RMSPropSolver(solver_file)``: the solver of a solver prototxt, of type RMSProp whatever it says."""


class AdaDeltaSolver(_NamedSolver, solver_type="AdaDelta"):
    """``AdaDeltaSolver(solver_file)``: the solver of a solver prototxt, of type AdaDelta whatever it says."""


class AdamSolver(_NamedSolver, solver_type="Adam"):
    """``AdamSolver(solver_file)``: the solver of a solver prototxt, of type Adam whatever it says."""


def _make_solver(solver_file: Path, kind: str | None) -> core.Solver:
    def read() -> SolverParameter:
        parameter = read_solver(solver_file)
        if kind is not None and parameter.type != kind:
            if parameter.HasField("type"):
                warnings.warn(
                    f"{os.fspath(solver_file)}: type is '{parameter.type}', but {kind}Solver(...) trains by {kind}, as in "
                    "Caffe; get_solver(...) goes by the file",
                    stacklevel=4,
                )
            parameter.type = kind
        if parameter.random_seed < 0 and ranks.choices.seed is not None:
            parameter.random_seed = ranks.choices.seed
        return parameter

    world = ranks.world()  # first: from now on an error on one rank ends all
    options = NetOptions(activity=ranks.activity(), keeps_arrays=True)
    if world.size == 1:
        parameter, backend = read(), new_backend()
        with backend.on_device():
            solver = create_parallel_solver(parameter, world, backend=backend, net_options=options)
    else:
        parameter = agreed(world, read)
        # Scripts may do the same to the parameters on every rank, so that each has its own.
        solver = agreed(
            world,
            lambda: create_parallel_solver(
                parameter, world, backend=new_backend(), net_options=options, shares_parameters=False
            ),
        )
    note_made(solver, solver.net.context.backend)
    return solver
