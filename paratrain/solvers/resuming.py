"""From a solver to its snapshot, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paratrain import snapshot as snapshots
from paratrain.solvers.display import batch_size, first_tops

if TYPE_CHECKING:
    from paratrain.solvers.solver import Solver

__all__ = ["Moment", "begin_snapshot", "capture", "restore", "rewind_tests"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moment:
    """What a snapshot holds beside parameters and history: where the data, the random numbers, the policies and what layers
    take over to the next batch are at some moment.
    """

    training: snapshots.TrainingState
    carried: Mapping[str, Any]
    """On the root, of all ranks (see paratrain.snapshot.carried)."""
    own_carried: Mapping[str, Any]
    """Of this rank's test nets alone."""


def capture(solver: Solver) -> Moment:
    """Return where the run is now. Every rank calls it: what layers take over is gathered."""
    training = snapshots.TrainingState(
        iteration=solver.iter,
        seed=solver.seed,
        ranks=solver.size,
        iter_size=solver.parameter.iter_size,
        data=snapshots.positions(solver.net),
        tests=[tester.next_batch for tester in solver.testers],
        policy=solver.policy_state(),
        solver_type=solver.parameter.type,
    )
    tests: dict[str, Any] = {}
    for index, tester in enumerate(solver.testers):
        if tester.net is not None:
            tests |= snapshots.copy_carried(tester.net, f"test/{index}")
    carried = dict(tests)
    if snapshots.carries(solver.net):
        gathered = solver.ranks.gather_objects(snapshots.copy_carried(solver.net, f"train/{solver.rank}"))
        for arrays in gathered or ():
            carried |= arrays
    return Moment(training, carried, tests)


def rewind_tests(solver: Solver, moment: Moment) -> None:
    """Bring the test nets back to where they were, as if they had not been run since."""
    for index, (tester, batch) in enumerate(zip(solver.testers, moment.training.tests, strict=True)):
        tester.seek(batch)
        if tester.net is not None:
            snapshots.put_carried(tester.net, moment.own_carried, f"test/{index}")


def begin_snapshot(solver: Solver, moment: Moment) -> None:
    """Copy what the snapshot holds; the rest is done beside the training."""
    with solver.not_training():
        solver.keeper.wait()  # before another copy takes memory
        names = solver.keeper.names(solver.iter)
        kind = "HDF5" if names.hdf5 else "binary proto"
        solver.info("Snapshotting to %s file %s", kind, names.model)
        solver.info("Snapshotting solver state to %s file %s", kind, names.state)
        history = solver.flat_update.copy_history()
        copy = snapshots.SnapshotCopy(
            solver.net.name,
            snapshots.copy_weights(solver.net, solver.parameter.snapshot_diff),
            solver.iter,
            solver.current_step,
            snapshots.shape_history(solver.net.parameters, history),
            moment.training.policy,
            moment.carried,
        )
        solver.keeper.begin(copy, moment.training)


def restore(solver: Solver, path: str) -> None:
    """Bring the solver to where the state at ``path`` was written: see Solver.restore."""
    found = snapshots.open_snapshot(path, with_sums=solver.root_solver)
    state, training = found.state, found.training
    snapshots.check_history(state, found.path, solver.net.parameters, solver.history_count, solver.parameter.type)
    plan = snapshots.DataPlan(solver.parameter.iter_size, {})
    if training is not None:
        training.check_type(found.training_path, solver.parameter.type)
        plan = snapshots.plan_data(training, solver.net, solver.size, plan.iter_size, str(found.training_path))
    carried = found.read_carried()
    model = found.find_model()
    if model is not None:
        snapshots.load_weights(solver.net, model)
    if solver.shares.owned:
        history = solver.flat_update.host_history()
        snapshots.load_history(state, solver.net.parameters, history, solver.shares.owned)
    solver.iter = solver.displayed_iter = state.iteration
    solver.current_step = state.current_step
    solver.sentinel.broken_off, solver.snapshot_iter = None, -1
    if training is None:
        solver.restore_policy_state({"current_step": state.current_step, **state.policy})
        return
    _resume_data(solver, training, plan)
    _resume_carried(solver, carried, training.ranks)
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
            batch_size(first_tops(solver.net)),
            plan.iter_size,
        )


def _resume_carried(solver: Solver, carried: Mapping[str, Any], ranks: int) -> None:
    """Put back what layers take over to the next batch, which ``ranks`` ranks had. On another number of ranks the records
    come in other batches, whose streams have not been seen before.
    """
    zeroed = snapshots.put_carried(solver.net, carried if solver.size == ranks else {}, f"train/{solver.rank}")
    for index, tester in enumerate(solver.testers):
        if tester.net is not None:
            zeroed += snapshots.put_carried(tester.net, carried, f"test/{index}")
    if not (zeroed and solver.root_solver):
        return
    if not carried:
        reason = "the snapshot does not hold it"
    elif solver.size != ranks:
        reason = f"it belongs to the batches of {ranks} ranks, and those of {solver.size} are others"
    else:
        reason = "it belongs to batches of another size, or to other layers"
    for name in dict.fromkeys(zeroed):
        logger.warning("Layer '%s': what it takes over from batch to batch begins with zeros: %s", name, reason)
