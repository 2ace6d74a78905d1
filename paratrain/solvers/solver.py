"""Solver: the loop of training, with the callbacks by which other ranks take part."""

from __future__ import annotations

import abc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

from paratrain import snapshot as snapshots
from paratrain.backends import Backend
from paratrain.errors import SolverError
from paratrain.layers.base import Clock
from paratrain.log import ProgressBar
from paratrain.metrics import MetricsWriter
from paratrain.net import debug
from paratrain.proto import SolverParameter, format_prototxt
from paratrain.random import entropy
from paratrain.solvers import report, resuming
from paratrain.solvers.actions import Action
from paratrain.solvers.callbacks import Callback, FunctionsCallback
from paratrain.solvers.checks import check_parameter, left_out_fields
from paratrain.solvers.display import SmoothedLoss, batch_size
from paratrain.solvers.nets import NetOptions, build_nets
from paratrain.solvers.policies import Policies
from paratrain.solvers.ranks import Alone, Ranks, agree, mean
from paratrain.solvers.sentinel import Sentinel
from paratrain.solvers.timing import StepTimes
from paratrain.solvers.update import FlatUpdate

__all__ = ["Solver"]

logger = logging.getLogger(__name__)


class Solver(abc.ABC):
    """Trains a net. Subclasses say how a gradient becomes an update.

    The step follows Caffe: clear the gradients; the root tests, when that is due; ``on_start``; forward and backward
    ``iter_size`` times; the loss is smoothed and, when due, displayed; ``on_gradient_ready``; the root updates (learning rate,
    clip, normalize, regularize, compute the update value, subtract it); the root snapshots, when that is due.

    All ranks are given the same ``parameter`` and ``seed``. Raises SolverError for settings that contradict each other, and
    what reading and building the nets raises.
    """

    history_count: ClassVar[int]
    """How many values the solver remembers of each learnable value."""
    history_is_velocity: ClassVar[bool] = False
    """Whether the first history is a step that goes on by ``momentum``, so that momentum may change while training goes on."""
    decoupled_decay: ClassVar[bool] = False
    """Whether weight decay stays out of the gradient."""

    def __init__(
        self,
        parameter: SolverParameter,
        *,
        backend: Backend,
        rank: int = 0,
        size: int = 1,
        seed: int | None = None,
        ranks: Ranks | None = None,
        net_options: NetOptions | None = None,
    ) -> None:
        check_parameter(parameter)
        for problem in self.find_problems(parameter):
            raise problem
        if seed is None:
            seed = parameter.random_seed
            if seed < 0 and size > 1:
                raise SolverError("ranks must start from the same random numbers: give random_seed, or seed to each")
            seed = entropy() if seed < 0 else seed
        self.parameter = parameter
        self.seed = seed
        """Decides all random numbers, with the iteration; the same on every rank."""
        self.backend = backend
        self.rank = rank
        self.size = size
        self.root_solver = rank == 0
        self.iter = 0
        self.loss = 0.0
        """This rank's weighted loss of the last step, averaged over ``iter_size``."""
        self.mean_over_ranks: Callable[[Sequence[float]], list[float]] = list
        """Averages numbers over the ranks; every rank calls it at iterations that are displayed."""
        self.action_function: Callable[[], Action] = lambda: Action.NONE
        """Asked in every iteration what this rank has been asked to do; what one is asked, all do after the iteration."""
        self.iteration_limit: int | None = None
        """The most iterations that one ``solve`` runs; None for as many as ``max_iter`` asks for."""
        self.metrics: MetricsWriter | None = None
        self.progress = False
        """Draw a progress bar in ``solve`` where stderr is a terminal."""
        self._callbacks: list[Callback] = []
        self._clock = Clock()
        self.times = StepTimes()
        self.smoothed = SmoothedLoss(parameter.average_loss)
        self._bar: ProgressBar | None = None
        self.current_step = 0
        self.momentum = 0.0
        """The momentum of the update that is being made."""
        self.displayed_iter = 0
        self.spread: dict[str, float] = {}

        self.info("Initializing solver from parameters: \n%s", format_prototxt(parameter).rstrip())
        if self.root_solver:
            for name in left_out_fields(parameter):
                logger.warning("The solver's %s is left out: it does not change what is learned", name)
        is_hdf5 = parameter.snapshot_format == SolverParameter.HDF5
        if self.root_solver and parameter.snapshot:
            snapshots.check_writable(parameter.snapshot_prefix, hdf5=is_hdf5)
        self.keeper = snapshots.SnapshotKeeper(parameter.snapshot_prefix, hdf5=is_hdf5)
        """Writes the snapshots, on the root, and removes those that are not kept."""
        self.ranks: Ranks = Alone() if ranks is None else ranks
        self.net, self.testers = build_nets(
            parameter,
            backend,
            self._clock,
            seed=seed,
            rank=rank,
            size=size,
            ranks=self.ranks,
            options=net_options or NetOptions(),
        )
        self.test_nets = [tester.net for tester in self.testers if tester.net is not None]
        self.sentinel = Sentinel(self.net, self.ranks)
        """Watches for losses and gradients that are not finite; its ``mode`` says what follows."""
        self._asked = Action.NONE
        self._snapshot_iter = -1
        self.flat_update = FlatUpdate(
            self.net.parameters,
            backend,
            parameter,
            self.history_count if self.root_solver else 0,
            decoupled_decay=self.decoupled_decay,
        )
        self.policies = Policies(parameter, self.flat_update.local_rates)
        if self.root_solver and parameter.test_interval > 0 and not self.testers:
            logger.warning(
                "Nothing will be tested: test_interval is %d, and no test_iter says how many batches to test",
                parameter.test_interval,
            )
        if self.root_solver and not any(self.net.layers_needing_backward):
            logger.warning("Nothing will be learned: no layer with parameters leads to a loss")
        self.info("Solver scaffolding done.")

    @classmethod
    def find_problems(cls, parameter: SolverParameter) -> Iterator[SolverError]:
        """Yield an error for every setting that a solver of this type cannot follow."""
        if cls.history_is_velocity:
            return
        for is_given, name in (
            (parameter.momentum_policy != "fixed", f"momentum_policy: '{parameter.momentum_policy}'"),
            (parameter.larc_turbo, "larc_turbo"),
        ):
            if is_given:
                yield SolverError(f"{name} is for the solver types SGD and Nesterov; this one is {parameter.type}")

    def prepare_update(self, rate: float) -> None:
        """Fix what all pieces of an update have in common; ``rate`` is the learning rate of this iteration."""
        self.momentum = self.policies.momentum(self.iter, rate)

    @abc.abstractmethod
    def compute_update_value(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        """Turn the gradient in ``diff`` into the value to subtract, in place.

        ``diff`` and the arrays of ``history`` are a piece of the flat arrays, ``scratch`` one to write in; ``rate`` is the
        learning rate times lr_mult.
        """

    def add_callback(
        self, callback: Callback | Callable[[], object], on_gradient_ready: Callable[[], object] | None = None
    ) -> None:
        """Call ``callback`` in every step from now on, after those added before; or, as in pycaffe, two functions."""
        if on_gradient_ready is None:
            self._callbacks.append(cast("Callback", callback))
        else:
            self._callbacks.append(FunctionsCallback(cast("Callable[[], object]", callback), on_gradient_ready))

    # -- training ------------------------------------------------------------------------------------------------

    def solve(self, resume_file: str | None = None) -> None:
        """Train up to ``max_iter``, from the state in ``resume_file`` if one is given; then snapshot, display and test as due."""
        parameter = self.parameter
        if not parameter.HasField("max_iter"):
            raise SolverError("max_iter is missing: the solver does not say how many iterations to train")
        self.info("Solving %s", self.net.name)
        self.info("Learning Rate Policy: %s", parameter.lr_policy)
        if self.root_solver and parameter.snapshot_after_train:
            is_hdf5 = parameter.snapshot_format == SolverParameter.HDF5
            snapshots.check_writable(parameter.snapshot_prefix, hdf5=is_hdf5)
        if resume_file is not None:
            self.info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        stop = parameter.max_iter
        if self.iteration_limit is not None:
            stop = min(stop, self.iter + self.iteration_limit)
        with ProgressBar(stop, self.iter, enabled=self.progress and self.root_solver) as self._bar:
            self.step(max(0, stop - self.iter))
        self._bar = None
        is_written = self._due(parameter.snapshot) or self._snapshot_iter == self.iter
        if self.root_solver and parameter.snapshot_after_train and not is_written:
            self.snapshot()
        if self._asked & Action.STOP:
            self.keeper.wait()
            self.info("Optimization stopped early.")
            return
        if self._due(parameter.display):
            self.smoothed.add(self.net.forward_from_to())
            [loss] = self.mean_over_ranks([self.smoothed.value])
            self.info("Iteration %d, loss = %g", self.iter, loss)
        if self._due(parameter.test_interval):
            self.test_all()
        self.keeper.wait()
        self.info("Optimization Done.")

    def step(self, count: int = 1) -> None:
        """Run ``count`` iterations, or fewer if a rank is asked to stop. Every rank calls it with the same count.

        Raises NotFiniteError, on every rank, for a loss or gradient that is not finite, unless such steps are skipped.
        """
        self.smoothed = SmoothedLoss(self.parameter.average_loss)
        self.times.resume()
        self._asked = Action.NONE
        for _ in range(count):
            self._iterate()
            if self._asked & Action.STOP:
                break
        if count > 0:
            self._call(callback.on_finish for callback in self._callbacks)
        self.times.pause()

    def _iterate(self) -> None:
        parameter, times = self.parameter, self.times
        self._clock.iteration = self.iter
        self.net.clear_param_diffs()
        if self._due(parameter.test_interval) and (self.iter > 0 or parameter.test_initialization):
            self.test_all()
        self._call(callback.on_start for callback in self._callbacks)
        is_displayed = self._due(parameter.display)
        self.net.debug_info = parameter.debug_info and is_displayed and self.root_solver
        self._forward_backward()
        self.smoothed.add(self.loss)
        if self.policies.watches_loss and self.policies.observe(self.iter, mean(self.ranks, self.loss)):
            self.info("Plateau Status: Iteration %d, step = %d", self.iter, self.policies.current_step(self.iter))
        rate = self.lr
        shown = report.display(self) if is_displayed else None
        self._call(callback.on_gradient_ready for callback in self._callbacks)
        is_spoilt = self._agree()
        if is_spoilt:  # displayed as it is, then left out by all ranks
            self.smoothed.take_back()
        if self.root_solver and not is_spoilt:
            if shown is not None:
                self.info("Iteration %d, lr = %g", self.iter, rate)
            begin = time.perf_counter()
            self.apply_update(rate)
            times.parts.update_s += time.perf_counter() - begin
        times.image_count += self.images_per_iteration
        if shown is not None:
            if self.metrics is not None:
                self.metrics.write(iteration=self.iter, loss=shown, lr=rate, **self.spread, **times.figures())
            times.reset()
        self.current_step = self.policies.current_step(self.iter)
        self.iter += 1
        if self.root_solver:
            self.keeper.check()
            if self._due(parameter.snapshot) or self._asked & Action.SNAPSHOT:
                self._begin_snapshot(resuming.training_state(self))
                self._snapshot_iter = self.iter
        if self._bar is not None:
            self._bar.advance(self.loss)

    def _forward_backward(self) -> None:
        """Add up the gradients of ``iter_size`` passes."""
        net, parts, loss = self.net, self.times.parts, 0.0
        self.sentinel.begin()
        for sub_iteration in range(self.parameter.iter_size):
            self._clock.sub_iteration = sub_iteration
            data_s, begin = net.data_s, time.perf_counter()
            pass_loss = net.forward_from_to()
            self.sentinel.see_loss(pass_loss)
            loss += pass_loss
            middle = time.perf_counter()
            net.backward_from_to()
            end = time.perf_counter()
            data_s = net.data_s - data_s
            parts.data_s += data_s
            parts.forward_s += middle - begin - data_s
            parts.backward_s += end - middle
        self.loss = loss / self.parameter.iter_size

    def _agree(self) -> bool:
        """Tell the other ranks what this one was asked to do and whether it met a number that is not finite; do as all do.

        Returns whether the step is to be skipped. Raises NotFiniteError.
        """
        begin = time.perf_counter()
        if self.root_solver:
            self.sentinel.see_gradient(self.net.parameters.diff, self.backend)
        middle = time.perf_counter()
        self.times.parts.update_s += middle - begin
        agreed = agree(self.ranks, int(self.action_function()) | self.sentinel.seen)
        self.times.parts.exchange_s += time.perf_counter() - middle
        self._asked = Action(agreed & (Action.SNAPSHOT | Action.STOP))
        return self.sentinel.decide(agreed, self.iter)

    def apply_update(self, rate: float | None = None) -> None:
        """Update the parameters from the gradients, at the learning rate of this iteration where none is given."""
        rate = self.lr if rate is None else rate
        self.prepare_update(rate)
        weight_decay = self.policies.weight_decay(self.iter)
        norm = self.flat_update.begin(rate, weight_decay=weight_decay, iteration=self.iter)
        if norm is not None:
            limit = self.parameter.clip_gradients
            self.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm,
                limit,
                limit / norm,
            )
        means_before = debug.data_means(self.net) if self.net.debug_info else None
        self.flat_update.update(self.compute_update_value)
        if means_before is not None:
            debug.update(self.net, means_before)

    @property
    def needs_all_gradients(self) -> bool:
        """Whether an update can begin only when every gradient is there: clip_gradients and layer-wise rates need norms."""
        return self.flat_update.needs_all_gradients

    def policy_state(self) -> dict[str, Any]:
        """What the policies remember beside iteration and history, as plain numbers: see Policies.state."""
        return self.policies.state()

    def restore_policy_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`policy_state` returned. Raises SnapshotError for a state of another net."""
        self.policies.restore(state)

    # -- testing -------------------------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Test every test net with the root's parameters, each rank its share of the batches; all ranks call it."""
        if not self.testers:
            return
        training = None if self.keeper.metric is None or not self.root_solver else resuming.training_state(self)
        with self.not_training():
            self.ranks.broadcast_parameters(self.net.parameters)
            scores = [report.test(self, index) for index in range(len(self.testers))]
        if training is not None and self.iter > 0 and self.keeper.score(self.iter, scores):
            self._begin_snapshot(training)

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write ``<snapshot_prefix>_iter_<iter>.caffemodel``, ``.solverstate`` and ``.trainstate``, on the root; they are
        there when it returns. Raises SnapshotError; NotFiniteError, and writes nothing, where what it would hold is spoilt.
        """
        if self.root_solver:
            self._begin_snapshot(resuming.training_state(self))
            self.keeper.wait()

    def _begin_snapshot(self, training: snapshots.TrainingState) -> None:
        self.sentinel.check_snapshot(self.flat_update.history, self.backend, self.iter)
        resuming.begin_snapshot(self, training)

    def restore(self, path: str) -> None:
        """Go on from a solver state: its iteration and history, and the weights it belongs to. Every rank calls it.

        With the trainstate beside it the data goes on where it was, and training continues bit for bit; on another number
        of ranks with the same records in each step. Without one, as Caffe writes it, the data stays where it is.

        Raises SnapshotError, and leaves the solver as it is, where the state or its weights do not fit.
        """
        resuming.restore(self, path)

    # -- helpers -------------------------------------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the iteration that comes next."""
        return self.policies.rate(self.iter)

    @property
    def images_per_iteration(self) -> int:
        """The effective batch: images that all ranks go through before each update (the nets' batch x iter_size x ranks)."""
        return batch_size(self.net) * self.parameter.iter_size * self.size

    def close(self) -> None:
        """Free the threads and files of the nets and the metrics, once the last snapshot is on the disk."""
        self.keeper.close()
        if self.metrics is not None:
            self.metrics.close()
        for net in (self.net, *self.test_nets):
            net.close()

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.iter % interval == 0

    def _call(self, functions: Iterable[Callable[[], object]]) -> None:
        begin = time.perf_counter()
        for function in functions:
            function()
        self.times.parts.exchange_s += time.perf_counter() - begin

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """Keep the time of the block out of the training speed."""
        begin = time.perf_counter()
        yield
        self.times.other_s += time.perf_counter() - begin

    def info(self, message: str, *values: object) -> None:
        """Log a line, on the root; whoever asks for it, it comes from ``solver.py``, as log readers expect."""
        if self.root_solver:
            logger.info(message, *values)
