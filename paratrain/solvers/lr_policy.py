"""Learning-rate policies: the rate as a pure function of the solver's settings and the iteration.

The formulas are those that Caffe's SolverParameter documents for ``lr_policy``; ``multifixed`` and ``plateau`` are intel/caffe's,
``min_lr`` is NVCaffe's.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter
from paratrain.registry import Registry
from paratrain.solvers.warm_up import check_warm_up, warm_up_rate

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
    """min_lr + (base_lr - min_lr) * (1 - iteration / max_iter) ^ power; min_lr, which is 0 if not given, after max_iter"""
    falls = parameter.base_lr - parameter.min_lr
    return parameter.min_lr + falls * math.pow(max(0.0, 1.0 - iteration / parameter.max_iter), parameter.power)


@_policy("sigmoid", "gamma", "stepsize")
def _sigmoid(parameter: SolverParameter, iteration: int) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))"""
    exponent = -parameter.gamma * (iteration - parameter.stepsize)
    if exponent > 0:  # the same value, without overflow
        return parameter.base_lr * math.exp(-exponent) / (1.0 + math.exp(-exponent))
    return parameter.base_lr / (1.0 + math.exp(exponent))


@_policy("multifixed", "stagelr", "stageiter")
def _multifixed(parameter: SolverParameter, iteration: int) -> float:
    """the stagelr of the first stageiter that is not below the iteration; after the last one, the last stagelr"""
    stage = bisect.bisect_left(parameter.stageiter, iteration)
    return parameter.stagelr[min(stage, len(parameter.stagelr) - 1)]


@_policy("plateau", "gamma", "plateau_winsize")
def _plateau(parameter: SolverParameter, iteration: int) -> float:  # noqa: ARG001
    """base_lr * gamma ^ (how often the smoothed loss has set no new minimum for plateau_winsize iterations)"""
    return parameter.base_lr


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
    for name in ("stepvalue", "stageiter"):
        values = list(getattr(parameter, name))
        if name in policy.required and values != sorted(values):
            raise SolverError(f"the {name}s must grow; the solver gives {', '.join(map(str, values))}")
    if "stageiter" in policy.required and len(parameter.stagelr) != len(parameter.stageiter):
        raise SolverError(
            f"lr_policy '{parameter.lr_policy}' needs one stagelr for each stageiter; "
            f"the solver gives {len(parameter.stagelr)} and {len(parameter.stageiter)}"
        )
    if "plateau_winsize" in policy.required and min(parameter.plateau_winsize) < 1:
        raise SolverError(f"plateau_winsize must be above 0; the solver gives {min(parameter.plateau_winsize)}")
    if parameter.min_lr < 0:
        raise SolverError(f"min_lr is {parameter.min_lr:g}; it must be 0 or more")
    if parameter.lr_policy == "poly" and parameter.min_lr > parameter.base_lr:
        raise SolverError(f"min_lr {parameter.min_lr:g} is above base_lr {parameter.base_lr:g}")
    check_warm_up(parameter)


def learning_rate(parameter: SolverParameter, iteration: int, drop_count: int = 0) -> float:
    """Return the rate of ``iteration`` (the first is 0) for settings that :func:`check_policy` has passed.

    While the rate warms up, the policy waits; ``min_lr`` holds in both. ``drop_count`` is what ``plateau`` has counted.
    """
    rate = warm_up_rate(parameter, iteration)
    if rate is None:
        try:
            rate = LR_POLICIES.get(parameter.lr_policy).rate(parameter, iteration)
        except OverflowError:
            rate = math.inf
        if parameter.lr_policy == "plateau":
            rate *= parameter.gamma**drop_count
    return max(rate, parameter.min_lr) if parameter.min_lr > 0 else rate


def current_step(parameter: SolverParameter, iteration: int) -> int:
    """Return how many steps a stepping policy has taken at ``iteration``: ``current_step`` in Caffe's solverstate.

    Caffe counts them for ``step`` and ``multistep`` and stores 0 for the other policies. What ``plateau`` counts depends on
    the losses: see paratrain.solvers.plateau.
    """
    if parameter.lr_policy == "step":
        return iteration // parameter.stepsize
    if parameter.lr_policy == "multistep":
        return bisect.bisect_right(parameter.stepvalue, iteration)
    return 0
