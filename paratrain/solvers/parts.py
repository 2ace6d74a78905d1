"""What a solver is made of: its settings, nets and update, and what stands ready around them."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

from paratrain import snapshot as snapshots
from paratrain.backends import Backend
from paratrain.backends.base import UpdateRule
from paratrain.errors import SolverError
from paratrain.layers.base import Clock
from paratrain.log import ProgressBar
from paratrain.metrics import Figure, Sink
from paratrain.net import Net
from paratrain.proto import SolverParameter, format_prototxt
from paratrain.solvers import report
from paratrain.solvers.actions import Action
from paratrain.solvers.callbacks import Callback, FunctionsCallback
from paratrain.solvers.checks import check_parameter, choose_seed
from paratrain.solvers.device_update import create_flat_update
from paratrain.solvers.display import SmoothedLoss, batch_size, first_tops
from paratrain.solvers.loss_scale import LossScale, scale_loss
from paratrain.solvers.nets import NetOptions, build_nets
from paratrain.solvers.policies import Policies
from paratrain.solvers.ranks import Alone, Ranks
from paratrain.solvers.sentinel import Sentinel
from paratrain.solvers.shares import RootUpdatesAll, Shares
from paratrain.solvers.timing import StepTimes

__all__ = ["SolverParts"]


class SolverParts(abc.ABC):
    """The parts of a :class:`paratrain.solvers.solver.Solver`, which trains with them; types of solvers fill in the update."""

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
        self.parameter = parameter
        self.seed = choose_seed(parameter, seed, size)
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
        self.metrics: Sink | None = None
        self.progress = False
        """Draw a progress bar in ``solve`` where stderr is a terminal."""
        self.keeps_updates = parameter.snapshot_diff or (net_options is not None and net_options.keeps_arrays)
        """Leave in ``diff`` what an update has subtracted, as Caffe does; it costs a pass over memory."""
        self.callbacks: list[Callback] = []
        self.after_update: list[Callable[[], object]] = []
        """Called on every rank when all ranks have the new parameters of an iteration, and ``iter`` counts it, before its
        snapshot."""
        self.clock = Clock()
        self.times = StepTimes()
        self.smoothed = SmoothedLoss(parameter.average_loss)
        self.bar: ProgressBar | None = None
        self.current_step = 0
        self.momentum = 0.0
        """The momentum of the update that is being made."""
        self.displayed_iter = 0
        self.spread: dict[str, float] = {}
        self.displayed: dict[str, Figure] = {}
        """The outputs of the net that were displayed last, and the parts of the time of each rank, as metrics have them."""
        self.bad_record_count = 0

        self.info("Initializing solver from parameters: \n%s", format_prototxt(parameter).rstrip())
        if self.root_solver and parameter.snapshot:
            snapshots.check_writable(parameter.snapshot_prefix, hdf5=self.is_hdf5)
        self.keeper = snapshots.SnapshotKeeper(parameter.snapshot_prefix, hdf5=self.is_hdf5)
        """Writes the snapshots, on the root, and removes those that are not kept."""
        self.ranks: Ranks = Alone() if ranks is None else ranks
        self.net, self.testers = build_nets(
            parameter,
            backend,
            self.clock,
            seed=self.seed,
            rank=rank,
            size=size,
            ranks=self.ranks,
            options=net_options or NetOptions(),
        )
        self.activity = self.net.context.activity
        """Where this rank says what it is doing; the nets do, too."""
        self.test_nets = [tester.net for tester in self.testers if tester.net is not None]
        self.sentinel = Sentinel(self.net, self.ranks)
        """Watches for losses and gradients that are not finite; its ``mode`` says what follows."""
        self.asked = Action.NONE
        """What all ranks have agreed to do, in the last iteration or test."""
        self.snapshot_iter = -1
        self.follows_rules = self.has_rules()
        """Whether each update is by :meth:`update_rule`."""
        self._first_tops = first_tops(self.net)
        self.flat_update = create_flat_update(
            self.net.parameters,
            backend,
            parameter,
            self.history_count,
            decoupled_decay=self.decoupled_decay,
            has_rules=self.follows_rules,
        )
        self.shares = RootUpdatesAll(self.flat_update.count, is_root=self.root_solver)
        self.policies = Policies(parameter, self.flat_update.local_rates)
        self.use_loss_scale(LossScale.default_of(backend))
        if parameter.snapshot:
            self.check_snapshots()
        report.begin(self)
        self.info("Solver scaffolding done.")

    @property
    def shares(self) -> Shares:
        """Which values this rank updates: all of them on the root, unless something else is set."""
        return self.flat_update.shares

    @shares.setter
    def shares(self, shares: Shares) -> None:
        self.flat_update.shares = shares

    def use_loss_scale(self, loss_scale: LossScale) -> None:
        """Multiply the loss by ``loss_scale`` from now on; every rank is given the same."""
        self.loss_scale = loss_scale
        self.flat_update.loss_scale = loss_scale.value
        scale_loss(self.net, loss_scale.value)

    def follow_loss_scale(self, is_finite: bool) -> bool:
        """Take in whether the gradient of this step is finite; every rank calls it with the same answer.

        Returns whether it is not since the loss was scaled too much: then nothing was updated, and from now on it is less.
        """
        before = self.loss_scale.value
        is_overflow = self.loss_scale.follow(is_finite)
        if is_overflow:
            self.info(
                "Iteration %d is left out: a gradient of the loss times %g is not finite. The loss scale is %g from now on",
                self.iter,
                before,
                self.loss_scale.value,
            )
        elif self.loss_scale.value != before:
            self.info(
                "Iteration %d: the loss scale is %g from now on, it was %g", self.iter, self.loss_scale.value, before
            )
        if self.loss_scale.value != before:
            self.use_loss_scale(self.loss_scale)
        return is_overflow

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

    def update_rule(self) -> UpdateRule | None:
        """The rule of this iteration's update, for backends that make it by themselves; None for a type that has none."""
        return None

    @classmethod
    def has_rules(cls) -> bool:
        """Whether ``update_rule`` is that of the update: a class that has another ``compute_update_value`` has to say it anew."""
        rule, computed = (
            next(index for index, kind in enumerate(cls.__mro__) if name in vars(kind))
            for name in ("update_rule", "compute_update_value")
        )
        return rule <= computed

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
            self.callbacks.append(cast("Callback", callback))
        else:
            self.callbacks.append(FunctionsCallback(cast("Callable[[], object]", callback), on_gradient_ready))

    @abc.abstractmethod
    def info(self, message: str, *values: object) -> None:
        """Log a line, on the root."""

    def check_snapshots(self) -> None:
        """Raise SnapshotError where snapshots could not be written: for their folder, on the root, or their size."""
        parameter = self.parameter
        if self.root_solver:
            snapshots.check_writable(parameter.snapshot_prefix, hdf5=self.is_hdf5)
        if not self.is_hdf5:
            snapshots.check_message_sizes(self.net, self.history_count, write_diff=parameter.snapshot_diff)

    @property
    def is_hdf5(self) -> bool:
        return self.parameter.snapshot_format == SolverParameter.HDF5

    @property
    def param(self) -> SolverParameter:
        """The settings (pycaffe's name for ``parameter``)."""
        return self.parameter

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use the parameters of the net that is trained, in its memory: when it learns, so does ``net``."""
        net.share_trained_layers_with(self.net)

    @property
    def lr(self) -> float:
        """The learning rate of the iteration that comes next."""
        return self.policies.rate(self.iter)

    @property
    def images_per_iteration(self) -> int:
        """The effective batch: images that all ranks go through before each update (the nets' batch x iter_size x ranks)."""
        return batch_size(self._first_tops) * self.parameter.iter_size * self.size

    def close(self) -> None:
        """Free the threads and files of the nets and the metrics, once the last snapshot is on the disk."""
        self.keeper.close()
        if self.metrics is not None:
            self.metrics.close()
        for net in (self.net, *self.test_nets):
            net.close()
        # Those who joined this solver to others refer to it: without them its memory goes at once.
        self.net.after_layer_backward = None
        self.callbacks.clear()
        self.shares = RootUpdatesAll(self.flat_update.count, is_root=self.root_solver)
        self.flat_update.shares = self.shares

    def is_due(self, interval: int) -> bool:
        """Whether something that is done every ``interval`` iterations is to be done now; 0 means never."""
        return interval > 0 and self.iter % interval == 0

    def call(self, functions: Iterable[Callable[[], object]]) -> None:
        """Call all, in the time that counts as exchange."""
        begin = time.perf_counter()
        for function in functions:
            function()
        self.times.parts.exchange_s += time.perf_counter() - begin

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """Keep the time of the block out of the training speed; blocks may lie in one another."""
        before, begin = self.times.other_s, time.perf_counter()
        try:
            yield
        finally:
            self.times.other_s = before + time.perf_counter() - begin
