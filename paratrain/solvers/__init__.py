"""Solvers: the loop of training, the update, and what is printed on the way."""

from paratrain.solvers.actions import Action
from paratrain.solvers.adadelta import AdaDeltaSolver
from paratrain.solvers.adagrad import AdaGradSolver
from paratrain.solvers.adam import AdamSolver
from paratrain.solvers.adamw import AdamWSolver
from paratrain.solvers.callbacks import Callback
from paratrain.solvers.factory import SOLVERS, create_solver, register_solver
from paratrain.solvers.files import read_solver
from paratrain.solvers.nesterov import NesterovSolver
from paratrain.solvers.nets import NetOptions, as_described
from paratrain.solvers.rmsprop import RMSPropSolver
from paratrain.solvers.sgd import SGDSolver
from paratrain.solvers.solver import Solver

__all__ = [
    "SOLVERS",
    "Action",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "AdamWSolver",
    "Callback",
    "NesterovSolver",
    "NetOptions",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "as_described",
    "create_solver",
    "read_solver",
    "register_solver",
]
