"""Solver: what a training run is made of, and its loop. What one iteration does is in paratrain.solvers.step."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from paratrain.errors import NotFiniteError, SolverError
from paratrain.log import ProgressBar
from paratrain.net import debug
from paratrain.solvers import report, resuming
from paratrain.solvers.actions import Action
from paratrain.solvers.display import SmoothedLoss
from paratrain.solvers.parts import SolverParts
from paratrain.solvers.ranks import announce
from paratrain.solvers.step import iterate
from paratrain.solvers.testing import TestInterruptedError
from paratrain.solvers.update import Norms

__all__ = ["Solver"]

logger = logging.getLogger(__name__)


class Solver(SolverParts):
    """Trains a net. Subclasses say how a gradient becomes an update.

    The step follows Caffe: clear the gradients; the root tests, when that is due; ``on_start``; forward and backward
    ``iter_size`` times; the loss is smoothed and, when due, displayed; ``on_gradient_ready``; the root updates (learning rate,
    clip, normalize, regularize, compute the update value, subtract it); the root snapshots, when that is due.

    All ranks are given the same ``parameter`` and ``seed``. Raises SolverError for settings that contradict each other, and
    what reading and building the nets raises.
    """

    # -- training ------------------------------------------------------------------------------------------------

    def solve(self, resume_file: str | None = None) -> None:
        """Train up to ``max_iter``, from the state in ``resume_file`` if one is given; then snapshot, display and test as due."""
        parameter = self.parameter
        if not parameter.HasField("max_iter"):
            raise SolverError("max_iter is missing: the solver does not say how many iterations to train")
        self.info("Solving %s", self.net.name)
        self.info("Learning Rate Policy: %s", parameter.lr_policy)
        if parameter.snapshot_after_train:
            self.check_snapshots()
        if resume_file is not None:
            self.info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        stop = parameter.max_iter
        if self.iteration_limit is not None:
            stop = min(stop, self.iter + self.iteration_limit)
        with ProgressBar(stop, self.iter, enabled=self.progress and self.root_solver) as self.bar:
            self.step(max(0, stop - self.iter))
        self.bar = None
        is_written = self.is_due(parameter.snapshot) or self.snapshot_iter == self.iter
        if parameter.snapshot_after_train and not is_written:
            self.snapshot()
        if Action.STOP in self.asked:
            self.keeper.wait()
            self.info("Optimization stopped early.")
            return
        end = resuming.capture(self)  # the pass that is displayed takes one more batch
        if self.is_due(parameter.display):
            self.smoothed.add(self.net.forward_from_to())
            [loss] = self.mean_over_ranks([self.smoothed.value])
            self.info("Iteration %d, loss = %g", self.iter, loss)
        if self.testers and self.is_due(parameter.test_interval):
            self.activity.enter("test")
            self._test_all(end)
        self.activity.enter("ending")
        self.keeper.wait()
        self.info("Optimization Done.")

    def step(self, count: int = 1) -> None:
        """Run ``count`` iterations, or fewer if a rank is asked to stop. Every rank calls it with the same count.

        Raises NotFiniteError, on every rank, for a loss or gradient that is not finite, unless such steps are skipped.
        """
        self.smoothed = SmoothedLoss(self.parameter.average_loss)
        self.times.resume()
        self.asked = Action.NONE
        with self.backend.on_device():
            for _ in range(count):
                iterate(self)
                if Action.STOP in self.asked:
                    break
        self.backend.check_faults()
        if count > 0:
            self.activity.iteration = self.iter
            self.activity.enter("exchange", "statistics")
            self.call(callback.on_finish for callback in self.callbacks)
        self.activity.enter("between steps")  # whoever called this may take long
        self.times.pause()

    def apply_update(self) -> None:
        """Update the parameters from the gradients that are in ``net.params[...].diff`` now, and count an iteration; for scripts
        that run forward and backward themselves.

        Raises SolverError where several ranks train together, which only :meth:`step` does.
        """
        if self.size > 1:
            raise SolverError(
                f"apply_update() would update from the gradients of this rank alone, and {self.size} ranks train together: "
                "use step(), or start the script as one rank"
            )
        with self.backend.on_device():
            norms = self.flat_update.measure(looks=self.loss_scale.is_dynamic)
            is_finite = norms.is_finite is not False and self.update_parameters(norms=norms)
        if self.loss_scale.is_dynamic and not is_finite and not self.follow_loss_scale(False):
            raise NotFiniteError(f"iteration {self.iter}: the gradient is not finite; nothing was updated")
        if is_finite:
            self.follow_loss_scale(True)
        self.iter += 1

    def update_parameters(
        self, rate: float | None = None, *, norms: Norms | None = None, guarded: bool = False
    ) -> bool:
        """Update the parameters from the gradients, at the learning rate of this iteration where none is given.

        ``norms`` are those of the gradients, where they have been measured. A ``guarded`` update is broken off before the
        first piece of them that is not finite (on a GPU, it leaves out all values that are not), and returns False; so does one
        that has been left to measure them.
        """
        rate = self.lr if rate is None else rate
        self.prepare_update(rate)
        weight_decay = self.policies.weight_decay(self.iter)
        self.flat_update.begin(
            rate,
            weight_decay=weight_decay,
            iteration=self.iter,
            norms=norms,
            rule=self.update_rule() if self.follows_rules else None,
            keeps_updates=self.keeps_updates or self.parameter.debug_info,
        )
        means_before = debug.data_means(self.net) if self.net.debug_info else None
        is_done = self.shares.update(lambda start, stop: self._update_part(start, stop, guarded))
        is_done &= self.flat_update.finish()
        norm, limit = self.flat_update.clipped_norm, self.parameter.clip_gradients
        if norm is not None:
            self.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm,
                limit,
                limit / norm,
            )
        if means_before is not None:
            debug.update(self.net, means_before)
        return is_done

    def _update_part(self, start: int, stop: int, guarded: bool) -> bool:
        begin = time.perf_counter()
        self.activity.enter("update")
        is_done = self.flat_update.update(self.compute_update_value, start, stop, guarded=guarded)
        self.times.parts.update_s += time.perf_counter() - begin
        return is_done

    @property
    def needs_all_gradients(self) -> bool:
        """Whether an update can begin only when every gradient is there: clip_gradients and layer-wise rates need norms."""
        return self.flat_update.needs_all_gradients

    @property
    def updates_by_parts(self) -> bool:
        """Whether a part may be updated as soon as its gradients are there, and not only if all of them are finite."""
        return not self.needs_all_gradients and self.sentinel.mode == "stop" and not self.loss_scale.is_dynamic

    def policy_state(self) -> dict[str, Any]:
        """What the policies remember beside iteration and history, as plain numbers: see Policies.state and LossScale.state."""
        return {**self.policies.state(), **self.loss_scale.state()}

    def restore_policy_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`policy_state` returned. Raises SnapshotError for a state of another net."""
        self.policies.restore(state)
        self.loss_scale.restore(state)
        self.use_loss_scale(self.loss_scale)

    # -- testing -------------------------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Test every test net with the root's parameters, each rank its share of the batches; all ranks call it.

        Between batches all do what one has been asked to do: a snapshot at once, and where it is to stop, the test ends
        without a score, as if it had not begun.
        """
        if self.testers:
            self.activity.enter("test")
            self._test_all(resuming.capture(self))

    def _test_all(self, moment: resuming.Moment) -> None:
        """As :meth:`test_all`; snapshots that are written meanwhile are of ``moment``."""

        def obey(agreed: int) -> None:
            self.asked = Action(agreed)
            if Action.SNAPSHOT in self.asked and self.snapshot_iter != self.iter:  # else it is there
                self.begin_snapshot(moment)
            if Action.STOP in self.asked:
                raise TestInterruptedError

        try:
            with self.not_training():
                self.ranks.broadcast_parameters(self.net.parameters)
                scores = [report.test(self, index, obey) for index in range(len(self.testers))]
        except TestInterruptedError:
            resuming.rewind_tests(self, moment)
            self.info("Test interrupted.")
            return
        is_best = self.root_solver and self.iter > 0 and self.keeper.score(self.iter, scores)
        if announce(self.ranks, int(is_best)):
            self.begin_snapshot(moment)

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write ``<snapshot_prefix>_iter_<iter>.caffemodel``, ``.solverstate`` and ``.trainstate``, on the root; they are
        there when it returns. Every rank calls it; where no layer of the net that is trained carries anything from batch
        to batch, the root may call it alone.

        Raises SnapshotError; SpoiltParametersError, and writes nothing, where what it would hold is spoilt.
        """
        self.begin_snapshot()
        self.keeper.wait()

    def begin_snapshot(self, moment: resuming.Moment | None = None) -> None:
        """As :meth:`snapshot`, but the root writes while training goes on. ``moment`` has been captured in this iteration;
        where it is None, every rank calls this.
        """
        self.activity.enter("snapshot")
        self.backend.check_faults()
        moment = resuming.capture(self) if moment is None else moment
        self.snapshot_iter = self.iter
        if self.shares.is_spread:
            for flat in self.flat_update.host_history():
                self.shares.gather(flat)
            if self.parameter.snapshot_diff:
                self.shares.gather(self.net.parameters.diff.mutable_host())
        if self.root_solver:
            with self.backend.on_device():
                self.sentinel.check_snapshot(self.flat_update.history, self.backend, self.iter)
            resuming.begin_snapshot(self, moment)

    def restore(self, path: str) -> None:
        """Go on from a solver state: its iteration and history, and the weights it belongs to. Every rank calls it.

        With the trainstate beside it the data goes on where it was, and training continues bit for bit; on another number
        of ranks with the same records in each step. Without one, as Caffe writes it, the data stays where it is.

        Raises SnapshotError, and leaves the solver as it is, where the state or its weights do not fit.
        """
        resuming.restore(self, path)

    # -- helpers -------------------------------------------------------------------------------------------------

    def info(self, message: str, *values: object) -> None:
        """Log a line, on the root; whoever asks for it, it comes from ``solver.py``, as log readers expect."""
        if self.root_solver:
            logger.info(message, *values)
