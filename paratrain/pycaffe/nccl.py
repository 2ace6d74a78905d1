"""NCCL: the object by which pycaffe's scripts join the solvers of several processes."""

from __future__ import annotations

from paratrain import solvers as core
from paratrain.errors import SolverError
from paratrain.pycaffe.ranks import meeting_place, new_meeting_place

__all__ = ["NCCL", "has_nccl"]


def has_nccl() -> bool:
    """Whether scripts can use :class:`NCCL`: yes. What it stands for here needs no library of that name."""
    return True


class NCCL:
    """``NCCL(solver, uid)``: pycaffe's name for what joins a solver to those of the other processes.

    Here a solver is joined to the others when it is made, under mpirun and in processes that a script has started (see
    ``set_solver_count``), and each step exchanges gradients however that is fastest. So this object checks that the uid is
    theirs, and ``bcast`` brings the root's parameters to all; as a callback of the solver, or of its net, it does nothing more.
    """

    exchanges_gradients = True

    def __init__(self, solver: core.Solver, uid: str) -> None:
        if not isinstance(solver, core.Solver):
            raise TypeError(f"NCCL(solver, uid): {solver!r} is no solver")
        if solver.size > 1 and uid != meeting_place():
            raise SolverError(
                f"NCCL(solver, uid): uid {uid!r} is not the one by which these {solver.size} processes have met, "
                f"{meeting_place()!r}: call new_uid() once, before the processes are started"
            )
        self._solver = solver

    @staticmethod
    def new_uid() -> str:
        """Return a name for the processes that this one is about to start, by which they find each other. Call it before."""
        return new_meeting_place()

    def bcast(self) -> None:
        """Bring the root's parameters to every rank. All ranks call it."""
        self._solver.ranks.broadcast_parameters(self._solver.net.parameters)

    def on_start(self) -> None:
        """Nothing: the solver brings the parameters to all."""

    def on_gradient_ready(self) -> None:
        """Nothing: the solver exchanges the gradients."""

    def on_finish(self) -> None:
        """Nothing."""

    def __call__(self, layer: int) -> None:
        """Nothing: gradients are exchanged layer by layer where the solver's ``layer_wise_reduce`` says so."""
