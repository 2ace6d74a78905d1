"""The rules of the updates that solvers make, and what a backend offers that makes them by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "MOST_ADDED",
    "AdaDeltaRule",
    "AdaGradRule",
    "AdamRule",
    "DeviceUpdate",
    "FusedUpdate",
    "MomentumRule",
    "NesterovRule",
    "RMSPropRule",
    "Regularization",
    "UpdateOutcome",
    "UpdateRule",
]


@dataclass(frozen=True)
class MomentumRule:
    """V = momentum V + rate gradient; w = w - V. One history, V."""

    momentum: float


@dataclass(frozen=True)
class AdamRule:
    """M = momentum M + (1 - momentum) gradient; S = momentum2 S + (1 - momentum2) gradient^2;
    w = w - rate correction M / (sqrt(S) + delta). Two histories, M and S.
    """

    momentum: float
    momentum2: float
    correction: float
    delta: float


@dataclass(frozen=True)
class NesterovRule:
    """V' = momentum V + rate gradient; w = w - ((1 + momentum) V' - momentum V). One history, V."""

    momentum: float


@dataclass(frozen=True)
class AdaGradRule:
    """H = H + gradient^2; w = w - rate gradient / (sqrt(H) + delta). One history, H."""

    delta: float


@dataclass(frozen=True)
class RMSPropRule:
    """H = decay H + (1 - decay) gradient^2; w = w - rate gradient / (sqrt(H) + delta). One history, H."""

    decay: float
    delta: float


@dataclass(frozen=True)
class AdaDeltaRule:
    """G = momentum G + (1 - momentum) gradient^2; u = gradient sqrt((U + delta) / (G + delta));
    U = momentum U + (1 - momentum) u^2; w = w - rate u. Two histories, G and U.
    """

    momentum: float
    delta: float


UpdateRule = MomentumRule | AdamRule | NesterovRule | AdaGradRule | RMSPropRule | AdaDeltaRule


@dataclass(frozen=True)
class Regularization:
    """What pulls values to 0: decay * w, or decay * sign(w) where ``is_l1``. It is added to the gradient, or, where it
    ``is_decoupled``, subtracted on top of the update, times the rate.
    """

    is_l1: bool = False
    is_decoupled: bool = False


class UpdateOutcome(NamedTuple):
    """How a :class:`DeviceUpdate` has gone."""

    is_finite: bool
    """Whether every value of the gradient was, as far as it was looked at."""
    norm: float
    """The L2 norm of the gradient, where ``measure`` was called; else 0."""
    losses: tuple[float, ...] = ()
    """The numbers that ``note_losses`` was given, and behind them zeros."""


MOST_LOSSES = 4
"""The most numbers that a :class:`DeviceUpdate` notes."""

MOST_ADDED = 2
"""The most gradients that a :class:`FusedUpdate` adds."""


class FusedUpdate(Protocol):
    """An update of flat arrays in as few passes over memory as the backend can; it does not keep what it subtracts."""

    def begin(self, rule: UpdateRule, data: Any, diffs: Sequence[Any], history: Sequence[Any]) -> None:
        """Fix what all ranges of a step have in common; the arrays are the caller's and used until the next call.

        ``diffs`` are at most ``MOST_ADDED``.
        """

    def run(self, start: int, stop: int, *, rate: float, decay: float, scale: float, guarded: bool = False) -> bool:
        """Update values ``start`` to ``stop`` with the gradient ``scale * (sum of diffs) + decay * data``.

        A ``guarded`` update returns False where the gradient is not finite; it changes no data from there on.
        """


class DeviceUpdate(Protocol):
    """An update of flat arrays on a device, in one launch for all runs of values that learn alike.

    A step is :meth:`prepare`, then :meth:`note_losses` where :meth:`outcome` is to tell them, :meth:`measure` where the norm
    is needed or nothing may be done for a gradient that is not finite, and :meth:`run` over ranges that cover the arrays
    once, in any order, and perhaps :meth:`send_outcome`. These four only launch, and may be recorded (see
    :meth:`paratrain.backends.base.Backend.record`): a replay does what the last ``prepare`` says, by the rule of the
    recording. Arrays are the caller's, and those of the whole net in each call.
    """

    def prepare(
        self,
        rule: UpdateRule,
        rates: Sequence[float],
        decays: Sequence[float],
        *,
        scale: float,
        limit: float = -1.0,
        unscale: float = 1.0,
    ) -> None:
        """Bring the numbers of a step to the device: for each run its rate and decay, and what gradients are multiplied by.

        Where ``measure`` finds a norm which, times ``unscale``, is above ``limit`` (unless that is below 0), they are also
        multiplied by limit over that.
        """

    def note_losses(self, losses: Sequence[Any]) -> None:
        """Keep the first value of up to MOST_LOSSES arrays for :meth:`outcome`. Unless all are finite, the ``run`` that follows
        does nothing.
        """

    def measure(self, diff: Any, ranges: Sequence[tuple[int, int]]) -> None:
        """Measure the gradient ``diff``, as far as it lies in these ranges. Unless it is finite, the ``run`` that follows does
        nothing.
        """

    def run(
        self,
        start: int,
        stop: int,
        data: Any,
        diffs: Sequence[Any],
        history: Sequence[Any],
        regularization: Regularization,
        *,
        kept: Any | None = None,
        guarded: bool = False,
    ) -> None:
        """Update values ``start`` to ``stop`` by the gradient ``scale * (sum of diffs)``; ``diffs`` are at most MOST_ADDED.

        What is subtracted goes to ``kept``, which may be one of them, unless it is None. A ``guarded`` update leaves values
        alone whose gradient is not finite.
        """

    def send_outcome(self) -> None:
        """Send to the host what :meth:`outcome` tells: the last launch of a step."""

    def outcome(self, *, is_sent: bool = False) -> UpdateOutcome:
        """Wait for what was launched since ``prepare``, ``send_outcome`` too where it ``is_sent``, and tell how it has gone."""

    def sum_products(
        self, ranges: Sequence[Sequence[tuple[int, int]]], pairs: Sequence[tuple[Any, Any]]
    ) -> npt.NDArray[np.float64]:
        """Return (pairs, ranges): for each pair of flat arrays, and for each list of ranges, the sum of their products there; not
        a number where an array of the pair is not finite. One wait for all. The same bits in each run.
        """
