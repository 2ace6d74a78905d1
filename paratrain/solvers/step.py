"""One iteration of training, from gradients of zero to the snapshot: what :meth:`Solver.step` does again and again."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from paratrain.solvers import report
from paratrain.solvers.actions import Action
from paratrain.solvers.device_update import DeviceFlatUpdate
from paratrain.solvers.ranks import agree, announce, collect, mean
from paratrain.solvers.update import Norms

if TYPE_CHECKING:
    from paratrain.solvers.solver import Solver

__all__ = ["iterate", "update_together"]

_ACTIONS = int(Action.SNAPSHOT | Action.STOP)


def iterate(solver: Solver) -> None:
    """Run an iteration. It ends before training where all ranks have agreed, during the test, to stop.

    Every rank calls it; the root alone tests what cannot be shared, updates and snapshots. Raises NotFiniteError.
    """
    parameter, times = solver.parameter, solver.times
    solver.clock.iteration = solver.activity.iteration = solver.iter
    solver.activity.enter("clear", "gradients")
    solver.net.parameters.clear_diffs()
    if solver.is_due(parameter.test_interval) and (solver.iter > 0 or parameter.test_initialization):
        solver.test_all()
        if Action.STOP in solver.asked:
            return
    solver.activity.enter("exchange", "parameters")
    solver.call(callback.on_start for callback in solver.callbacks)
    is_displayed = solver.is_due(parameter.display)
    solver.net.debug_info = parameter.debug_info and is_displayed and solver.root_solver
    policies = solver.policies
    if _forward_backward(solver, may_defer=not (is_displayed or policies.watches_loss)):
        solver.smoothed.add(solver.loss)
    if policies.watches_loss and policies.observe(solver.iter, mean(solver.ranks, solver.loss)):
        solver.info("Plateau Status: Iteration %d, step = %d", solver.iter, policies.current_step(solver.iter))
    rate = solver.lr
    solver.activity.enter("exchange", "gradients")
    shown = report.display(solver) if is_displayed else None
    solver.call(callback.on_gradient_ready for callback in solver.callbacks)
    if update_together(solver, rate, is_displayed):
        solver.smoothed.take_back()  # displayed as it is, then left out by all ranks
    times.image_count += solver.images_per_iteration
    times.step_count += 1
    if shown is not None:
        if solver.metrics is not None:
            figures = {**solver.spread, **times.figures(), "bad_records": solver.bad_record_count}
            solver.metrics.write(iteration=solver.iter, loss=shown, lr=rate, **figures, **solver.displayed)
        times.reset()
    solver.current_step = policies.current_step(solver.iter)
    solver.iter += 1
    if solver.after_update:
        solver.call(solver.after_update)
    if solver.root_solver:
        solver.keeper.check()
    if solver.is_due(parameter.snapshot) or Action.SNAPSHOT in solver.asked:
        solver.begin_snapshot()


def _forward_backward(solver: Solver, *, may_defer: bool) -> bool:
    """Add up the gradients of ``iter_size`` passes. Returns whether the loss is known.

    Where it ``may_defer``, a device is given the update behind the pass before anybody waits for it, and the loss is known when
    both are done: see :func:`_noted_loss_is_finite`.
    """
    net, parts, loss = solver.net, solver.times.parts, 0.0
    solver.sentinel.begin()
    may_defer = may_defer and solver.parameter.iter_size == 1 and solver.size == 1 and not solver.callbacks
    reads_loss = not (
        may_defer and isinstance(solver.flat_update, DeviceFlatUpdate) and solver.flat_update.may_note_losses
    )
    for sub_iteration in range(solver.parameter.iter_size):
        solver.clock.sub_iteration = sub_iteration
        data_s, begin = net.data_s, time.perf_counter()
        recorded_loss = None if net.recorded_pass is None else net.recorded_pass.run(reads_loss=reads_loss)
        pass_loss = net.forward_from_to(backward_follows=True) if recorded_loss is None else recorded_loss
        solver.sentinel.see_loss(pass_loss)
        loss += pass_loss
        middle = time.perf_counter()
        if recorded_loss is None:
            net.backward_from_to()
            if net.recorded_pass is not None:
                net.recorded_pass.note_pass()
        end = time.perf_counter()
        data_s = net.data_s - data_s
        parts.data_s += data_s
        parts.forward_s += middle - begin - data_s
        parts.backward_s += end - middle
    solver.loss = loss / solver.parameter.iter_size
    if net.recorded_pass is None or not net.recorded_pass.is_loss_unread:
        return True
    assert isinstance(solver.flat_update, DeviceFlatUpdate)
    solver.flat_update.losses_to_note = net.recorded_pass.loss_arrays()
    return False


def update_together(solver: Solver, rate: float, is_displayed: bool) -> bool:
    """Update, unless a number that is not finite forbids it; on all ranks do what one was asked to do.

    Returns whether the step is skipped. Raises NotFiniteError, on every rank.
    """
    parts, update_s = solver.times.parts, solver.times.parts.update_s
    begin = time.perf_counter()
    wishes = int(solver.action_function()) | solver.sentinel.seen
    update = _update_on_owners if solver.shares.is_spread else _update_on_root
    agreed = update(solver, wishes, rate, is_displayed)
    parts.exchange_s += time.perf_counter() - begin - (parts.update_s - update_s)
    solver.asked = Action(agreed & _ACTIONS)
    try:
        sentinel = solver.sentinel
        if sentinel.allows_update(agreed) and solver.follow_loss_scale(sentinel.allows_gradient(agreed)):
            return False
        return sentinel.decide(agreed, solver.iter)
    finally:  # also where this was the last step, so that all ranks are left at the same place
        begin = time.perf_counter()
        solver.activity.enter("exchange", "parameters")
        solver.shares.spread()
        parts.exchange_s += time.perf_counter() - begin


def _update_on_root(solver: Solver, wishes: int, rate: float, is_displayed: bool) -> int:
    """The root updates. Returns what all ranks together wish and have seen.

    The ranks tell the root what they were asked and whether their loss is finite, and the root tells all what follows: one
    message up and one down.
    """
    wishes = collect(solver.ranks, wishes)
    if solver.root_solver and solver.sentinel.allows_update(wishes):
        parts, update_s, begin = solver.times.parts, solver.times.parts.update_s, time.perf_counter()
        _guarded_update(solver, rate, is_displayed)
        parts.update_s = update_s + time.perf_counter() - begin
    return announce(solver.ranks, wishes | solver.sentinel.seen)


def _update_on_owners(solver: Solver, wishes: int, rate: float, is_displayed: bool) -> int:
    """Every rank updates its part. Returns what all ranks together wish and have seen.

    Where parts may be updated one by one, as their gradients come in, the ranks agree afterwards, whether all of it was
    finite. Otherwise they agree before.
    """
    sentinel, flat_update = solver.sentinel, solver.flat_update
    if not solver.updates_by_parts:
        norms = flat_update.measure()
        finite = flat_update.is_gradient_finite() if norms.is_finite is None else norms.is_finite
        sentinel.gradient_is_finite = finite
        agreed = agree(solver.ranks, wishes | sentinel.seen)
        if sentinel.allows_update(agreed) and sentinel.allows_gradient(agreed):
            _update(solver, rate, norms, is_displayed, guarded=False)
        return agreed
    sentinel.gradient_is_finite = _update(solver, rate, Norms(), is_displayed, guarded=True)
    agreed = agree(solver.ranks, wishes | sentinel.seen)
    if not sentinel.allows_gradient(agreed):
        sentinel.broken_off = solver.iter
    return agreed


def _guarded_update(solver: Solver, rate: float, is_displayed: bool) -> None:
    """Update where the gradient is finite; otherwise tell the sentinel.

    Norms that the update needs say it beforehand, unless it measures them by itself. Without them a step that may be skipped,
    or whose loss scale may be too large, is looked at as a whole; else each piece of the gradient is looked at when the update
    comes to it, which is in the processor's cache then.
    """
    sentinel = solver.sentinel
    norms = solver.flat_update.measure(looks=sentinel.mode == "skip" or solver.loss_scale.is_dynamic)
    is_finite = norms.is_finite
    if is_finite is not False:
        is_finite = _update(solver, rate, norms, is_displayed, guarded=is_finite is None)
        if not _noted_loss_is_finite(solver):
            return
        if not (is_finite or norms.are_left_to_update):
            sentinel.broken_off = solver.iter
    sentinel.gradient_is_finite = is_finite


def _noted_loss_is_finite(solver: Solver) -> bool:
    """Look at the loss, where the device has kept it until the update was done; it has left that out unless this is True."""
    recorded, flat_update = solver.net.recorded_pass, solver.flat_update
    if recorded is None or not recorded.is_loss_unread:
        return True
    assert isinstance(flat_update, DeviceFlatUpdate)
    solver.loss = recorded.see_loss(recorded.weighted(flat_update.noted_losses))
    solver.smoothed.add(solver.loss)
    solver.sentinel.see_loss(solver.loss)
    return math.isfinite(solver.loss)


def _update(solver: Solver, rate: float, norms: Norms, is_displayed: bool, *, guarded: bool) -> bool:
    if is_displayed:
        solver.info("Iteration %d, lr = %g", solver.iter, rate)
    return solver.update_parameters(rate, norms=norms, guarded=guarded)
