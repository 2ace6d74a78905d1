"""Solver: the loop of training, with the callbacks by which other ranks take part."""

from __future__ import annotations

import abc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from paratrain.solvers.callbacks import Callback, FunctionsCallback
from paratrain.solvers.checks import check_parameter, left_out_fields
from paratrain.solvers.display import SmoothedLoss, batch_size, format_outputs, iteration_line, name_values, net_outputs
from paratrain.solvers.lr_policy import current_step, learning_rate
from paratrain.solvers.nets import build_nets
from paratrain.solvers.testing import score
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

    def __init__(
        self,
        parameter: SolverParameter,
        *,
        backend: Backend,
        rank: int = 0,
        size: int = 1,
        seed: int | None = None,
        allow_python: bool = True,
    ) -> None:
        check_parameter(parameter)
        if seed is None:
            seed = parameter.random_seed
            if seed < 0 and size > 1:
                raise SolverError("ranks must start from the same random numbers: give random_seed, or seed to each")
            seed = entropy() if seed < 0 else seed
        self.parameter = parameter
        self.backend = backend
        self.rank = rank
        self.size = size
        self.root_solver = rank == 0
        self.iter = 0
        self.loss = 0.0
        """This rank's weighted loss of the last step, averaged over ``iter_size``."""
        self.mean_over_ranks: Callable[[Sequence[float]], list[float]] = list
        """Averages numbers over the ranks; every rank calls it at iterations that are displayed."""
        self.metrics: MetricsWriter | None = None
        self.progress = False
        """Draw a progress bar in ``solve`` where stderr is a terminal."""
        self._callbacks: list[Callback] = []
        self._clock = Clock()
        self._times = StepTimes()
        self._smoothed = SmoothedLoss(parameter.average_loss)
        self._bar: ProgressBar | None = None
        self._current_step = 0
        self._displayed_iter = 0

        self._info("Initializing solver from parameters: \n%s", format_prototxt(parameter).rstrip())
        if self.root_solver:
            for name in left_out_fields(parameter):
                logger.warning("The solver's %s is left out: it does not change what is learned", name)
        if self.root_solver and parameter.snapshot:
            snapshots.check_writable(parameter.snapshot_prefix)
        self.net, self.test_nets = build_nets(
            parameter, backend, self._clock, seed=seed, rank=rank, size=size, allow_python=allow_python
        )
        self._update = FlatUpdate(
            self.net.parameters,
            backend,
            parameter,
            self.history_count if self.root_solver else 0,
            self.compute_update_value,
        )
        self._info("Solver scaffolding done.")

    @abc.abstractmethod
    def compute_update_value(self, diff: Any, history: Sequence[Any], rate: float) -> None:
        """Turn the gradient in ``diff`` into the value to subtract, in place.

        ``diff`` and the arrays of ``history`` are a piece of the flat arrays; ``rate`` is the learning rate times lr_mult.
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
        self._info("Solving %s", self.net.name)
        self._info("Learning Rate Policy: %s", parameter.lr_policy)
        if self.root_solver and parameter.snapshot_after_train:
            snapshots.check_writable(parameter.snapshot_prefix)
        if resume_file is not None:
            self._info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        with ProgressBar(parameter.max_iter, self.iter, enabled=self.progress and self.root_solver) as self._bar:
            self.step(max(0, parameter.max_iter - self.iter))
        self._bar = None
        if self.root_solver and parameter.snapshot_after_train and not self._due(parameter.snapshot):
            self.snapshot()
        if self._due(parameter.display):
            self._smoothed.add(self.net.forward_from_to())
            [loss] = self.mean_over_ranks([self._smoothed.value])
            self._info("Iteration %d, loss = %g", self.iter, loss)
        if self._due(parameter.test_interval):
            self.test_all()
        self._info("Optimization Done.")

    def step(self, count: int = 1) -> None:
        """Run ``count`` iterations. Every rank calls it with the same count."""
        self._smoothed = SmoothedLoss(self.parameter.average_loss)
        self._times.resume()
        for _ in range(count):
            self._iterate()
        if count > 0:
            self._call(callback.on_finish for callback in self._callbacks)
        self._times.pause()

    def _iterate(self) -> None:
        parameter, times = self.parameter, self._times
        self._clock.iteration = self.iter
        self.net.clear_param_diffs()
        if self._due(parameter.test_interval) and (self.iter > 0 or parameter.test_initialization):
            self.test_all()
        self._call(callback.on_start for callback in self._callbacks)
        is_displayed = self._due(parameter.display)
        self.net.debug_info = parameter.debug_info and is_displayed and self.root_solver
        self._forward_backward()
        self._smoothed.add(self.loss)
        rate = learning_rate(parameter, self.iter)
        shown = self._display() if is_displayed else None
        self._call(callback.on_gradient_ready for callback in self._callbacks)
        if self.root_solver:
            if shown is not None:
                self._info("Iteration %d, lr = %g", self.iter, rate)
            begin = time.perf_counter()
            self.apply_update(rate)
            times.parts.update_s += time.perf_counter() - begin
        times.image_count += self.images_per_iteration
        if shown is not None:
            if self.metrics is not None:
                self.metrics.write(iteration=self.iter, loss=shown, lr=rate, **times.figures())
            times.reset()
        self._current_step = current_step(parameter, self.iter)
        self.iter += 1
        if self.root_solver and self._due(parameter.snapshot):
            self.snapshot()
        if self._bar is not None:
            self._bar.advance(self.loss)

    def _forward_backward(self) -> None:
        """Add up the gradients of ``iter_size`` passes."""
        net, parts, loss = self.net, self._times.parts, 0.0
        for sub_iteration in range(self.parameter.iter_size):
            self._clock.sub_iteration = sub_iteration
            data_s, begin = net.data_s, time.perf_counter()
            loss += net.forward_from_to()
            middle = time.perf_counter()
            net.backward_from_to()
            end = time.perf_counter()
            data_s = net.data_s - data_s
            parts.data_s += data_s
            parts.forward_s += middle - begin - data_s
            parts.backward_s += end - middle
        self.loss = loss / self.parameter.iter_size

    def apply_update(self, rate: float | None = None) -> None:
        """Update the parameters from the gradients, at the learning rate of this iteration where none is given."""
        norm = self._update.begin(learning_rate(self.parameter, self.iter) if rate is None else rate)
        if norm is not None:
            limit = self.parameter.clip_gradients
            self._info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm,
                limit,
                limit / norm,
            )
        means_before = debug.data_means(self.net) if self.net.debug_info else None
        self._update.update()
        if means_before is not None:
            debug.update(self.net, means_before)

    def _display(self) -> float:
        """Print the loss and the outputs, averaged over ranks; return the loss."""
        outputs = net_outputs(self.net)
        loss, *values = self.mean_over_ranks([self._smoothed.value, *(output.value for output in outputs)])
        lapse_s = self._times.since_display.elapsed_s
        per_s = (self.iter - self._displayed_iter) / lapse_s if lapse_s > 0 else 0.0
        self._times.since_display.reset()
        self._displayed_iter = self.iter
        self._info("%s", iteration_line(self.iter, per_s, lapse_s, self.parameter.display, loss))
        averaged = [replace(output, value=value) for output, value in zip(outputs, values, strict=True)]
        for line in format_outputs(averaged, "    Train net output "):
            self._info("%s", line)
        return loss

    # -- testing -------------------------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Test every test net on the root, with the parameters that are in the net to train; other ranks do nothing."""
        if not self.root_solver:
            return
        with self._not_training():
            for index in range(len(self.test_nets)):
                self._test(index)

    def _test(self, index: int) -> None:
        parameter, net = self.parameter, self.test_nets[index]
        self._info("Iteration %d, Testing net (#%d)", self.iter, index)
        net.share_trained_layers_with(self.net)
        loss, outputs = score(net, parameter.test_iter[index])
        if parameter.test_compute_loss:
            self._info("Test loss: %g", loss)
        for line in format_outputs(outputs, "    Test net output "):
            self._info("%s", line)
        if self.metrics is not None:
            self.metrics.write(iteration=self.iter, test_net=index, outputs=name_values(outputs))

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Write ``<snapshot_prefix>_iter_<iter>.caffemodel`` and ``.solverstate``, on the root. Raises SnapshotError."""
        if not self.root_solver:
            return
        with self._not_training():
            stem = f"{self.parameter.snapshot_prefix}_iter_{self.iter}"
            model, state = f"{stem}.caffemodel", f"{stem}.solverstate"
            self._info("Snapshotting to binary proto file %s", model)
            snapshots.save_weights(self.net, model, write_diff=self.parameter.snapshot_diff)
            self._info("Snapshotting solver state to binary proto file %s", state)
            snapshots.write_state(
                state,
                iteration=self.iter,
                learned_net=model,
                current_step=self._current_step,
                parameters=self.net.parameters,
                history=self._update.host_history(),
            )

    def restore(self, path: str) -> None:
        """Go on from a solver state: its iteration and history, and the weights it belongs to. Every rank calls it.

        Raises SnapshotError, and leaves the solver as it is, where the state or its weights do not fit.
        """
        state = snapshots.read_state(path)
        snapshots.check_history(state, path, self.net.parameters, self.history_count, self.parameter.type)
        model = snapshots.find_learned_net(state, path)
        if model is not None:
            snapshots.load_weights(self.net, model)
        if self.root_solver:
            snapshots.load_history(state, self.net.parameters, self._update.host_history())
        self.iter = self._displayed_iter = state.iter
        self._current_step = state.current_step

    # -- helpers -------------------------------------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the iteration that comes next."""
        return learning_rate(self.parameter, self.iter)

    @property
    def images_per_iteration(self) -> int:
        """The effective batch: images that all ranks go through before each update (the nets' batch x iter_size x ranks)."""
        return batch_size(self.net) * self.parameter.iter_size * self.size

    def close(self) -> None:
        """Free the threads and files of the nets."""
        for net in (self.net, *self.test_nets):
            net.close()

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.iter % interval == 0

    def _call(self, functions: Iterable[Callable[[], object]]) -> None:
        begin = time.perf_counter()
        for function in functions:
            function()
        self._times.parts.exchange_s += time.perf_counter() - begin

    @contextmanager
    def _not_training(self) -> Iterator[None]:
        """Keep the time of the block out of the training speed."""
        begin = time.perf_counter()
        yield
        self._times.other_s += time.perf_counter() - begin

    def _info(self, message: str, *values: object) -> None:
        """Log a line, on the root, under the file and line of the caller."""
        if self.root_solver:
            logger.info(message, *values, stacklevel=2)
