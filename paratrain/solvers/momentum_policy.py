"""NVCaffe's policies by which momentum and weight decay change while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter

__all__ = ["find_policy_problems", "momentum_at", "weight_decay_at"]

MOMENTUM_POLICIES = ("fixed", "poly", "opt")
WEIGHT_DECAY_POLICIES = ("fixed", "poly")


def find_policy_problems(parameter: SolverParameter) -> Iterator[SolverError]:
    """Yield an error for every setting of these policies that cannot be followed."""
    if parameter.momentum_policy not in MOMENTUM_POLICIES:
        yield SolverError(
            f"unknown momentum_policy '{parameter.momentum_policy}'; known: {', '.join(MOMENTUM_POLICIES)}"
        )
    if parameter.weight_decay_policy not in WEIGHT_DECAY_POLICIES:
        yield SolverError(
            f"unknown weight_decay_policy '{parameter.weight_decay_policy}'; known: {', '.join(WEIGHT_DECAY_POLICIES)}"
        )
    for policy, power in (("momentum_policy", "momentum_power"), ("weight_decay_policy", "weight_decay_power")):
        if getattr(parameter, policy) != "poly":
            continue
        if parameter.max_iter <= 0:
            yield SolverError(f"{policy} 'poly' needs max_iter above 0; the solver gives {parameter.max_iter}")
        if getattr(parameter, power) < 0:
            yield SolverError(f"{power} is {getattr(parameter, power):g}; it must be 0 or more")
    if parameter.weight_decay_policy == "poly" and not parameter.HasField("weight_decay_power"):
        yield SolverError("weight_decay_policy 'poly' needs weight_decay_power, which the solver does not give")


def momentum_at(parameter: SolverParameter, iteration: int, rate: float) -> float:
    """Return the momentum of ``iteration``, whose learning rate is ``rate``.

    fixed: momentum
    poly:  momentum + (max_momentum - momentum) * (iteration / max_iter) ^ momentum_power
    opt:   (1 - sqrt(rate) / 2) ^ 2, at most max_momentum where that is given
    """
    if parameter.momentum_policy == "poly":
        grows = parameter.max_momentum - parameter.momentum
        return parameter.momentum + grows * _part(parameter, iteration, parameter.momentum_power)
    if parameter.momentum_policy == "opt":
        best = (1.0 - 0.5 * math.sqrt(rate)) ** 2
        return min(best, parameter.max_momentum) if parameter.HasField("max_momentum") else best
    return parameter.momentum


def weight_decay_at(parameter: SolverParameter, iteration: int) -> float:
    """Return the weight decay of ``iteration``.

    fixed: weight_decay
    poly:  weight_decay * (iteration / max_iter) ^ weight_decay_power, as in NVCaffe; where max_weight_decay is given,
           weight_decay + (max_weight_decay - weight_decay) * (iteration / max_iter) ^ weight_decay_power: the field is in
           NVCaffe's schema without a formula, and is read here as max_momentum is.
    """
    if parameter.weight_decay_policy != "poly":
        return parameter.weight_decay
    part = _part(parameter, iteration, parameter.weight_decay_power)
    if parameter.HasField("max_weight_decay"):
        return parameter.weight_decay + (parameter.max_weight_decay - parameter.weight_decay) * part
    return parameter.weight_decay * part


def _part(parameter: SolverParameter, iteration: int, power: float) -> float:
    return math.pow(min(iteration / parameter.max_iter, 1.0), power)
