"""From a solver to its snapshot, and back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from paratrain import snapshot as snapshots
from paratrain.solvers.display import batch_size

if TYPE_CHECKING:
    from paratrain.solvers.solver import Solver

__all__ = ["begin_snapshot", "restore", "training_state"]

logger = logging.getLogger(__name__)


def training_state(solver: Solver) -> snapshots.TrainingState:
    """What Caffe's files do not say: where the data, the random numbers and the policies are now."""
    return snapshots.TrainingState(
        iteration=solver.iter,
        seed=solver.seed,
        ranks=solver.size,
        iter_size=solver.parameter.iter_size,
        data=snapshots.positions(solver.net),
        tests=[tester.next_batch for tester in solver.testers],
        policy=solver.policy_state(),
        solver_type=solver.parameter.type,
    )


def begin_snapshot(solver: Solver, training: snapshots.TrainingState) -> None:
    """Copy what the snapshot holds; the rest is done beside the training."""
    with solver.not_training():
        solver.keeper.wait()  # before another copy takes memory
        names = solver.keeper.names(solver.iter)
        kind = "HDF5" if names.hdf5 else "binary proto"
        solver.info("Snapshotting to %s file %s", kind, names.model)
        solver.info("Snapshotting solver state to %s file %s", kind, names.state)
        history = [flat.copy() for flat in solver.flat_update.host_history()]
        copy = snapshots.SnapshotCopy(
            solver.net.name,
            snapshots.copy_weights(solver.net, solver.parameter.snapshot_diff),
            solver.iter,
            solver.current_step,
            snapshots.shape_history(solver.net.parameters, history),
            training.policy,
        )
        solver.keeper.begin(copy, training)


def restore(solver: Solver, path: str) -> None:
    """Bring the solver to where the state at ``path`` was written: see Solver.restore."""
    found = snapshots.open_snapshot(path, with_sums=solver.root_solver)
    state, training = found.state, found.training
    snapshots.check_history(state, found.path, solver.net.parameters, solver.history_count, solver.parameter.type)
    plan = snapshots.DataPlan(solver.parameter.iter_size, {})
    if training is not None:
        training.check_type(found.training_path, solver.parameter.type)
        plan = snapshots.plan_data(training, solver.net, solver.size, plan.iter_size, str(found.training_path))
    model = found.find_model()
    if model is not None:
        snapshots.load_weights(solver.net, model)
    if solver.root_solver:
        snapshots.load_history(state, solver.net.parameters, solver.flat_update.host_history())
    solver.iter = solver.displayed_iter = state.iteration
    solver.current_step = state.current_step
    if training is None:
        solver.restore_policy_state({"current_step": state.current_step, **state.policy})
        return
    _resume_data(solver, training, plan)
    solver.restore_policy_state(training.policy)
    solver.keeper.resume(training, found.training_path)


def _resume_data(solver: Solver, training: snapshots.TrainingState, plan: snapshots.DataPlan) -> None:
    """Bring the data, and the random numbers, to where a snapshot was written."""
    if solver.root_solver and solver.parameter.random_seed not in (-1, training.seed):
        logger.warning("The run goes on with its own seed, %d, not with random_seed %d", training.seed, solver.seed)
    solver.seed, solver.parameter.iter_size = training.seed, plan.iter_size
    snapshots.reopen(solver.net, plan.batch_sizes, training.seed)
    snapshots.move_to(solver.net, training.data, training.ranks)
    for net in solver.test_nets:
        snapshots.reopen(net, {}, training.seed)
    for tester, batch in zip(solver.testers, training.tests, strict=False):
        tester.seek(batch)
    if solver.size != training.ranks:
        solver.info(
            "The snapshot was written on %d ranks; each of %d now takes %d records in each of %d passes of a step",
            training.ranks,
            solver.size,
            batch_size(solver.net),
            plan.iter_size,
        )
