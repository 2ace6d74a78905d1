"""The update of flat arrays: elementwise passes over pieces that stay in the processor's cache.

The values of all learnable parameters lie in one array and their gradients in another (see paratrain.net.Parameters).
Neighbours that learn alike form a run; a run is worked through in pieces, and every pass over a piece is done before
the next piece is touched, so that each value travels from memory once and back once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from paratrain.backends import Backend
from paratrain.backends.base import MOST_ADDED, FusedUpdate, UpdateRule
from paratrain.backends.finite import is_finite, without_warnings
from paratrain.blob import Memory, SyncedMemory
from paratrain.net import Parameters
from paratrain.proto import SolverParameter
from paratrain.solvers.local_rates import LocalRates, wants_local_rates
from paratrain.solvers.runs import PIECE_COUNT, Run, add_in_order, find_runs, pieces, regularize_l1, regularize_l2
from paratrain.solvers.shares import RootUpdatesAll, Shares

__all__ = ["ComputeUpdateValue", "FlatUpdate", "Norms"]

_LEAST_FUSED_SCALE = 1e-12

ComputeUpdateValue = Callable[[Any, Sequence[Any], Any, float], None]


class Norms(NamedTuple):
    """L2 norms of a gradient that its update needs: of all of it for ``clip_gradients``, of each run for layer-wise rates."""

    whole: float | None = None
    by_run: Sequence[float] | None = None
    data_by_run: Sequence[float] | None = None
    """For layer-wise rates, those of the parameters."""
    cosines: Sequence[float] | None = None
    """For larc_turbo, of the angles between the gradient and the first history, for each run; 0 where either is 0."""
    is_finite: bool | None = None
    """Whether the gradient is; None where nobody has looked."""
    are_left_to_update: bool = False
    """The update measures the gradient by itself, and does nothing where that is not finite."""


class FlatUpdate:
    """One solver's update of all learnable parameters, and its history.

    The history is ``history_count`` flat arrays laid out like the learnable values. A step is :meth:`measure`, whose norms
    say whether the gradient is fit to be used (it may be left out), :meth:`begin`, then :meth:`update` over ranges that cover
    the arrays once, in any order, and :meth:`finish`. ``compute_update_value(diff, history, scratch, rate)`` is the solver's
    own part: it turns the gradient in ``diff`` into the value to subtract, reading and writing pieces in place; ``scratch`` is
    a piece to write in. With ``decoupled_decay`` the decay stays out of the gradient: rate * decay * data is subtracted on top
    (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019).
    """

    def __init__(
        self,
        parameters: Parameters,
        backend: Backend,
        settings: SolverParameter,
        history_count: int,
        *,
        decoupled_decay: bool = False,
    ) -> None:
        self._parameters = parameters
        self._backend = backend
        self._settings = settings
        self._decoupled_decay = decoupled_decay
        self._regularize = regularize_l1 if settings.regularization_type == "L1" else regularize_l2
        self.runs = find_runs(parameters.learning, apart=wants_local_rates(settings))
        self.local_rates = LocalRates(settings, len(self.runs)) if wants_local_rates(settings) else None
        self.count = parameters.diff.count
        self.history: list[Memory] = [SyncedMemory(self.count, parameters.data.dtype) for _ in range(history_count)]
        # A device has no cache to stay in, and few large passes are best there.
        self._piece_count = PIECE_COUNT if backend.device is None else max(self.count, 1)
        self._scratch = SyncedMemory(min(self._piece_count, self.count), parameters.data.dtype)
        self.shares: Shares = RootUpdatesAll(self.count, is_root=True)
        """Which values this rank updates."""
        self.loss_scale = 1.0
        """What the loss was multiplied by, and so the gradient is: the update divides by it, and norms are of the gradient
        without it."""
        self.clipped_norm: float | None = None
        """The norm of the gradient of this step, where it was larger than ``clip_gradients``; known after :meth:`finish`."""
        self._rates: list[float] = []  # one for each run
        self._scale = 1.0
        self._weight_decay = 0.0
        self._fused: FusedUpdate | None = None
        self._fused_updates: dict[type[UpdateRule], FusedUpdate] = {}

    @property
    def needs_all_gradients(self) -> bool:
        """Whether :meth:`begin` reads all gradients; otherwise only :meth:`update` does, those of its own range."""
        return self._settings.clip_gradients >= 0 or self.local_rates is not None

    def measure(self, *, looks: bool = False) -> Norms:
        """Return the norms of the gradient that this step needs; nothing is changed. With ``looks`` they say in any case
        whether the gradient is finite, or leave that to the update.
        """
        if not self.needs_all_gradients:
            return Norms(is_finite=self.is_gradient_finite()) if looks else Norms()
        diff, data = self._values(self._parameters.diff), self._values(self._parameters.data)
        runs, pairs = [Run(0, self.count, 1.0, 1.0)], [(diff, diff)]
        if self.local_rates is not None:
            runs, pairs = self.runs, [*pairs, (data, data)]
            if self.local_rates.is_turbo:
                history = self._values(self.history[0])
                pairs += [(diff, history), (history, history)]
        with without_warnings():
            totals = self._sum_products(runs, pairs)
            norms = [_root(total) / self.loss_scale for total in totals[0]]
            whole = math.sqrt(sum(norm * norm for norm in norms)) if len(norms) > 1 else norms[0]
        finite = all(map(math.isfinite, norms)) or self._is_finite_everywhere()
        return Norms(
            whole if self._settings.clip_gradients >= 0 else None,
            norms if self.local_rates is not None else None,
            [_root(total) for total in totals[1]] if len(totals) > 1 else None,
            self._cosines(totals[0], totals[2], totals[3]) if len(totals) > 2 else None,
            finite,
        )

    def _sum_products(self, runs: Sequence[Run], pairs: Sequence[tuple[Any, Any]]) -> list[list[float]]:
        """For each pair of flat arrays, and each run, the sum of their products over all owners.

        Pieces are summed in their dtype, sums of pieces in double.
        """
        xp, totals = self._backend.xp, np.zeros((len(pairs), len(runs)))
        for pair, (one, other) in enumerate(pairs):
            for index, run in enumerate(runs):
                for start, stop in self.shares.owned:
                    for _, piece in pieces([run], start, stop, self._piece_count):
                        totals[pair, index] += float(xp.dot(one[piece], other[piece]))
        self.shares.sum(totals)
        found: list[list[float]] = totals.tolist()
        return found

    def _is_finite_everywhere(self) -> bool:
        counts = np.array([0.0 if self.is_gradient_finite() else 1.0])
        self.shares.sum(counts)
        return bool(counts[0] == 0.0)

    def is_gradient_finite(self) -> bool:
        """Whether all of the gradient that this rank owns is finite, by a pass over it."""
        diff, xp = self._values(self._parameters.diff), self._backend.xp
        with without_warnings():
            return all(is_finite(diff[start:stop], xp) for start, stop in self.shares.owned if start < stop)

    def begin(
        self,
        rate: float,
        *,
        weight_decay: float | None = None,
        iteration: int = 0,
        norms: Norms | None = None,
        rule: UpdateRule | None = None,
        keeps_updates: bool = True,
    ) -> float | None:
        """Fix what a step is made with: the learning rate, the decay (that of the settings if None), the scale of gradients.

        ``diff`` holds the sum over ``iter_size`` passes. Where its L2 norm is above ``clip_gradients`` it is scaled down to
        that, then divided by ``iter_size`` (the order is Caffe's). Returns the norm where it was too large, else None.
        Layer-wise rates are worked out here too, from the scaled gradients (see paratrain.solvers.local_rates). ``norms``
        are those of this gradient; None to measure them now. With a ``rule`` the backend may make the update by itself, which
        on the host it does only if it need not leave in ``diff`` what it subtracted.
        """
        norms = self.measure() if norms is None else norms
        self._weight_decay = self._settings.weight_decay if weight_decay is None else weight_decay
        self._scale = self.shares.gradient_scale / self._settings.iter_size
        self.clipped_norm, limit = None, self._settings.clip_gradients
        if norms.whole is not None and norms.whole > limit:
            self._scale *= limit / norms.whole
            self.clipped_norm = norms.whole
        if norms.by_run is None:
            self._rates = [rate * run.lr_mult for run in self.runs]
        else:
            assert self.local_rates is not None and norms.data_by_run is not None
            self.local_rates.iteration = iteration
            cosines = [None] * len(self.runs) if norms.cosines is None else norms.cosines
            each = zip(self.runs, norms.data_by_run, norms.by_run, cosines, strict=True)
            self._rates = [
                self.local_rates.rate(index, rate, run.lr_mult, data_norm, norm * self._scale, cosine)
                for index, (run, data_norm, norm, cosine) in enumerate(each)
            ]
        self._scale /= self.loss_scale
        self._begin_fused(rule, norms, keeps_updates=keeps_updates)
        return self.clipped_norm

    def _begin_fused(self, rule: UpdateRule | None, _norms: Norms, *, keeps_updates: bool) -> None:
        """Let the backend make the updates of this step, where it has one for the rule and the decay is part of the gradient.

        Not where clipping has made the scale so small that the decay over it could overflow.
        """
        is_l2 = self._settings.regularization_type == "L2" or not self._weight_decay
        is_fit = is_l2 and not self._decoupled_decay and not keeps_updates and self._scale > _LEAST_FUSED_SCALE
        self._fused = None
        if rule is not None and is_fit and len(self.shares.gradients or ()) <= MOST_ADDED:
            dtype = self._parameters.data.dtype
            self._fused = self._fused_updates.get(type(rule)) or self._backend.fused_update(rule, dtype)
        if self._fused is not None and rule is not None:
            self._fused_updates[type(rule)] = self._fused
            parameters, history = self._parameters, [self._array(memory) for memory in self.history]
            gradients = self.shares.gradients or [self._array(parameters.diff)]
            self._fused.begin(rule, self._array(parameters.data), gradients, history)

    @staticmethod
    def _cosines(
        diff_squares: Sequence[float], products: Sequence[float], history_squares: Sequence[float]
    ) -> list[float]:
        each = zip(diff_squares, products, history_squares, strict=True)
        return [product / norm if (norm := _root(one) * _root(other)) > 0 else 0.0 for one, product, other in each]

    def update(
        self,
        compute_update_value: ComputeUpdateValue,
        start: int = 0,
        stop: int | None = None,
        *,
        guarded: bool = False,
    ) -> bool:
        """Update the values ``start`` to ``stop`` (the end where None): scale, regularize, compute the update value, subtract.

        Afterwards ``diff`` holds what was subtracted, as in Caffe, unless the step has a rule. A ``guarded`` update looks at
        each piece of the gradient; it is broken off before the first that is not finite changes a parameter, and returns False.
        """
        with without_warnings():
            return self._update(compute_update_value, start, self.count if stop is None else stop, guarded)

    def finish(self) -> bool:
        """The last part has been updated: return whether the gradient was finite, as far as ``update`` has not said so."""
        return True

    def _run_fused(self, fused: FusedUpdate, start: int, stop: int, guarded: bool) -> bool:
        for index, part in pieces(self.runs, start, stop, self.count):
            rate, decay = self._rates[index], self._weight_decay * self.runs[index].decay_mult
            if not fused.run(part.start, part.stop, rate=rate, decay=decay, scale=self._scale, guarded=guarded):
                return False
        return True

    def _update(self, compute_update_value: ComputeUpdateValue, start: int, stop: int, guarded: bool) -> bool:
        if self._fused is not None:
            return self._run_fused(self._fused, start, stop, guarded)
        xp = self._backend.xp
        data, diff = self._array(self._parameters.data), self._array(self._parameters.diff)
        histories = [self._array(memory) for memory in self.history]
        scratch = self._array(self._scratch)
        for index, piece in pieces(self.runs, start, stop, self._piece_count):
            rate, decay = self._rates[index], self._weight_decay * self.runs[index].decay_mult
            data_piece, diff_piece, scratch_piece = data[piece], diff[piece], scratch[: piece.stop - piece.start]
            if self.shares.gradients is not None:
                add_in_order([gradient[piece] for gradient in self.shares.gradients], scratch_piece, diff_piece, xp)
            if guarded and not is_finite(diff_piece, xp):
                return False
            if self._scale != 1.0:
                xp.multiply(diff_piece, self._scale, out=diff_piece)
            if decay and not self._decoupled_decay:
                self._regularize(data_piece, diff_piece, scratch_piece, decay, xp)
            compute_update_value(diff_piece, [history[piece] for history in histories], scratch_piece, rate)
            if decay and self._decoupled_decay:
                self._regularize(data_piece, diff_piece, scratch_piece, rate * decay, xp)
            xp.subtract(data_piece, diff_piece, out=data_piece)
        return True

    def host_history(self) -> list[Any]:
        """The flat histories on the host, to be read or written."""
        return [memory.mutable_host() for memory in self.history]

    def copy_history(self) -> list[Any]:
        """Copies of the flat histories, on the host."""
        return [memory.host().copy() for memory in self.history]

    def _array(self, memory: Memory) -> Any:
        device = self._backend.device
        return memory.mutable_host() if device is None else memory.mutable_device(device)

    def _values(self, memory: Memory) -> Any:
        """The same for reading only."""
        device = self._backend.device
        return memory.host() if device is None else memory.device(device)


def _root(total: float) -> float:
    """The L2 norm, from a sum of squares; not a number where that is none."""
    return math.sqrt(total) if total >= 0 else math.nan
