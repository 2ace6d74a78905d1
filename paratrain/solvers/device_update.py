"""The update of flat arrays on a device: one launch for all of them, and at most one wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paratrain.backends import Backend
from paratrain.backends.base import MOST_ADDED, UpdateRule
from paratrain.backends.recorded_calls import RecordedCalls
from paratrain.backends.update_rules import DeviceUpdate, Regularization
from paratrain.net import Parameters
from paratrain.proto import SolverParameter
from paratrain.solvers.local_rates import wants_local_rates
from paratrain.solvers.runs import Run, find_runs
from paratrain.solvers.update import ComputeUpdateValue, FlatUpdate, Norms

__all__ = ["DeviceFlatUpdate", "create_flat_update"]

_LEFT_TO_UPDATE = Norms(are_left_to_update=True)


class DeviceFlatUpdate(FlatUpdate):
    """The update of a solver whose every step has a rule, by a backend that makes it on its device.

    Where one rank updates all, and no layer-wise rates are asked for, the device measures the gradient and acts on what it
    finds; the host learns of it in :meth:`finish`, the only wait of the update. Otherwise the host reads the norms before.
    """

    def __init__(
        self,
        parameters: Parameters,
        backend: Backend,
        settings: SolverParameter,
        history_count: int,
        on_device: DeviceUpdate,
        *,
        decoupled_decay: bool = False,
    ) -> None:
        super().__init__(parameters, backend, settings, history_count, decoupled_decay=decoupled_decay)
        self._regularization = Regularization(settings.regularization_type == "L1", decoupled_decay)
        self._on_device = on_device
        self._rule: UpdateRule | None = None
        self._has_looked = False  # at the losses and the gradient, in this step
        self._recorded = RecordedCalls(backend)
        self._has_rule = self._keeps_updates = self._measures = self._is_unread = self._is_sent = False
        self.losses_to_note: Sequence[Any] = ()
        """Arrays with the losses of the pass before, which nobody has read yet: the next step notes them, and leaves everything
        as it is unless they are finite."""
        self.noted_losses: tuple[float, ...] = ()
        """What they were, known after :meth:`finish`."""

    @property
    def may_note_losses(self) -> bool:
        """Whether nobody needs to know the loss before the update is launched."""
        return self.local_rates is None and not self.shares.is_spread

    def measure(self, *, looks: bool = False) -> Norms:
        if not (looks or self.needs_all_gradients) or self.shares.is_spread or self.local_rates is not None:
            return super().measure(looks=looks)
        return _LEFT_TO_UPDATE

    def _sum_products(self, runs: Sequence[Run], pairs: Sequence[tuple[Any, Any]]) -> list[list[float]]:
        ranges = [
            [
                (max(run.start, start), min(run.stop, stop))
                for start, stop in self.shares.owned
                if max(run.start, start) < min(run.stop, stop)
            ]
            for run in runs
        ]
        totals = self._on_device.sum_products(ranges, pairs)
        self.shares.sum(totals)
        found: list[list[float]] = totals.tolist()
        return found

    def is_gradient_finite(self) -> bool:
        """Whether all of the gradient that this rank owns is finite, by a pass over it and a wait."""
        diff = self._values(self._parameters.diff)
        [[total]] = self._on_device.sum_products([self.shares.owned], [(diff, diff)])
        return not math.isnan(total)

    def _begin_fused(self, rule: UpdateRule | None, norms: Norms, *, keeps_updates: bool) -> None:
        self._rule = rule
        self._has_rule = rule is not None and len(self.shares.gradients or ()) <= MOST_ADDED
        self._keeps_updates, self._measures, self._is_unread = keeps_updates, norms.are_left_to_update, False
        self._has_looked = self._is_sent = False
        if rule is None or not self._has_rule:
            assert not self._measures, "the solver has a rule in every step"
            super()._begin_fused(None, norms, keeps_updates=keeps_updates)
            return
        self._on_device.prepare(
            rule,
            self._rates,
            [self._weight_decay * run.decay_mult for run in self.runs],
            scale=self._scale,
            limit=self._settings.clip_gradients if self._measures else -1.0,
            unscale=1.0 / self.loss_scale,
        )

    def update(
        self,
        compute_update_value: ComputeUpdateValue,
        start: int = 0,
        stop: int | None = None,
        *,
        guarded: bool = False,
    ) -> bool:
        """As :meth:`FlatUpdate.update`, but whether the gradient was finite is known when :meth:`finish` says it."""
        if not self._has_rule:
            return super().update(compute_update_value, start, stop, guarded=guarded)
        stop = self.count if stop is None else stop
        own_diff = (self._array if self._keeps_updates else self._values)(self._parameters.diff)
        data, history = self._array(self._parameters.data), [self._array(memory) for memory in self.history]
        diffs, kept = self.shares.gradients or [own_diff], own_diff if self._keeps_updates else None
        measures, losses, guards = self._measures, self.losses_to_note, guarded and not self._measures

        has_looked, self._has_looked = self._has_looked, True
        is_whole = start == 0 and stop == self.count
        is_read = guarded or measures or bool(losses)

        def give() -> None:
            if losses and not has_looked:
                self._on_device.note_losses(losses)
            if measures and not has_looked:
                self._on_device.measure(own_diff, self.shares.owned)
            self._on_device.run(start, stop, data, diffs, history, self._regularization, kept=kept, guarded=guards)
            if is_whole and is_read:
                self._on_device.send_outcome()

        if is_whole:
            places = map(self._backend.address, (data, own_diff, *diffs, *history, *losses))
            self._recorded.run((type(self._rule), *places, kept is None, measures, len(losses), guards), give)
        else:
            give()
        self._is_unread |= is_read
        self._is_sent = is_whole and is_read
        return True

    def finish(self) -> bool:
        if not self._is_unread:
            return True
        outcome, limit = self._on_device.outcome(is_sent=self._is_sent), self._settings.clip_gradients
        self._is_unread = False
        self.noted_losses, self.losses_to_note = outcome.losses[: len(self.losses_to_note)], ()
        if self._measures and outcome.is_finite and 0 <= limit < outcome.norm:
            self.clipped_norm = outcome.norm
        return outcome.is_finite


def create_flat_update(
    parameters: Parameters,
    backend: Backend,
    settings: SolverParameter,
    history_count: int,
    *,
    decoupled_decay: bool,
    has_rules: bool,
) -> FlatUpdate:
    """Return the update of a solver on this backend; ``has_rules`` says that it has a rule for every step."""
    runs = find_runs(parameters.learning, apart=wants_local_rates(settings))
    on_device = backend.device_update([run.stop for run in runs], parameters.data.dtype) if has_rules else None
    if on_device is None:
        return FlatUpdate(parameters, backend, settings, history_count, decoupled_decay=decoupled_decay)
    return DeviceFlatUpdate(parameters, backend, settings, history_count, on_device, decoupled_decay=decoupled_decay)
