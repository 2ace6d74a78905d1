"""Learning-rate policies: the rate as a pure function of the solver's settings and the iteration.

The formulas are those that Caffe's SolverParameter documents for ``lr_policy``.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.registry import Registry

__all__ = ["LR_POLICIES", "LearningRatePolicy", "check_policy", "current_step", "learning_rate"]

Rate = Callable[[SolverParameter, int], float]


@dataclass(frozen=True)
class LearningRatePolicy:
    """``rate(parameter, iteration)``, and the fields of SolverParameter that it cannot do without."""

    rate: Rate
    required: tuple[str, ...]
    doc: str


LR_POLICIES: Registry[LearningRatePolicy] = Registry("learning-rate policy")


def _policy(name: str, *required: str) -> Callable[[Rate], Rate]:
    def decorate(rate: Rate) -> Rate:
        LR_POLICIES.add(name, LearningRatePolicy(rate, required, (rate.__doc__ or "").strip()))
        return rate

    return decorate


@_policy("fixed")
def _fixed(parameter: SolverParameter, iteration: int) -> float:  # noqa: ARG001  (every policy takes both)
    """base_lr"""
    return parameter.base_lr


@_policy("step", "gamma", "stepsize")
def _step(parameter: SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ floor(iteration / stepsize)"""
    return parameter.base_lr * parameter.gamma ** (iteration // parameter.stepsize)


@_policy("exp", "gamma")
def _exp(parameter: SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ iteration"""
    return parameter.base_lr * parameter.gamma**iteration


@_policy("inv", "gamma", "power")
def _inv(parameter: SolverParameter, iteration: int) -> float:
    """base_lr * (1 + gamma * iteration) ^ -power"""
    return parameter.base_lr * math.pow(1.0 + parameter.gamma * iteration, -parameter.power)


@_policy("multistep", "gamma", "stepvalue")
def _multistep(parameter: SolverParameter, iteration: int) -> float:
    """base_lr * gamma ^ (the number of stepvalues that are not above the iteration)"""
    return parameter.base_lr * parameter.gamma ** bisect.bisect_right(parameter.stepvalue, iteration)


@_policy("poly", "power", "max_iter")
def _poly(parameter: SolverParameter, iteration: int) -> float:
    """base_lr * (1 - iteration / max_iter) ^ power; 0 after max_iter"""
    return parameter.base_lr * math.pow(max(0.0, 1.0 - iteration / parameter.max_iter), parameter.power)


@_policy("sigmoid", "gamma", "stepsize")
def _sigmoid(parameter: SolverParameter, iteration: int) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))"""
    exponent = -parameter.gamma * (iteration - parameter.stepsize)
    if exponent > 0:  # the same value, without overflow
        return parameter.base_lr * math.exp(-exponent) / (1.0 + math.exp(-exponent))
    return parameter.base_lr / (1.0 + math.exp(exponent))


def check_policy(parameter: SolverParameter) -> None:
    """Check that the settings name a known policy and give what it needs.

    Raises UnknownNameError for a policy that nobody registered, SolverError for settings that are missing or out of range.
    """
    if not parameter.lr_policy:
        raise SolverError(f"the solver gives no lr_policy; choose one of {', '.join(LR_POLICIES.names())}")
    policy = LR_POLICIES.get(parameter.lr_policy)
    present = {field.name for field, _ in parameter.ListFields()}
    missing = [name for name in policy.required if name not in present]
    if missing:
        raise SolverError(
            f"lr_policy '{parameter.lr_policy}' needs {' and '.join(missing)}, which the solver does not give; "
            f"the rate is {policy.doc}"
        )
    for name, policies in (("gamma", ("inv",)), ("power", ("poly",))):
        if parameter.lr_policy in policies and getattr(parameter, name) < 0:
            raise SolverError(
                f"lr_policy '{parameter.lr_policy}' needs {name} of 0 or more; the solver gives {getattr(parameter, name):g}"
            )
    for name in ("stepsize", "max_iter"):
        if name in policy.required and getattr(parameter, name) <= 0:
            raise SolverError(
                f"lr_policy '{parameter.lr_policy}' needs {name} above 0; the solver gives {getattr(parameter, name)}"
            )
    values = list(parameter.stepvalue)
    if "stepvalue" in policy.required and values != sorted(values):
        raise SolverError(f"the stepvalues must grow; the solver gives {', '.join(map(str, values))}")


def learning_rate(parameter: SolverParameter, iteration: int) -> float:
    """Return the rate of ``iteration`` (the first is 0) for settings that :func:`check_policy` has passed."""
    try:
        return LR_POLICIES.get(parameter.lr_policy).rate(parameter, iteration)
    except OverflowError:
        return math.inf


def current_step(parameter: SolverParameter, iteration: int) -> int:
    """Return how many steps a stepping policy has taken at ``iteration``: ``current_step`` in Caffe's solverstate.

    Caffe counts them for ``step`` and ``multistep`` and stores 0 for the other policies.
    """
    if parameter.lr_policy == "step":
        return iteration // parameter.stepsize
    if parameter.lr_policy == "multistep":
        return bisect.bisect_right(parameter.stepvalue, iteration)
    return 0
