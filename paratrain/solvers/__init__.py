"""Solvers: the loop of training, the update, and what is printed on the way."""

from paratrain.solvers.callbacks import Callback
from paratrain.solvers.factory import SOLVERS, create_solver, register_solver
from paratrain.solvers.files import read_solver
from paratrain.solvers.sgd import SGDSolver
from paratrain.solvers.solver import Solver

__all__ = ["SOLVERS", "Callback", "SGDSolver", "Solver", "create_solver", "read_solver", "register_solver"]
