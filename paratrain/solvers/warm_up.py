"""Warm-up: the first iterations of a training with large batches, at rates that grow to ``base_lr``.

intel/caffe's grows linearly, from ``warmup_start_lr`` in ``warmup_iter`` iterations; NVCaffe's as a square, from ``rampup_lr`` in
``rampup_interval`` iterations. Afterwards the policy's rate is that of the iteration it is at, as if it had run from the start.
"""

from __future__ import annotations

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter

__all__ = ["check_warm_up", "is_warming_up", "momentum_correction", "warm_up_rate"]


def check_warm_up(parameter: SolverParameter) -> None:
    """Raise SolverError where the settings ask for both forms of warm-up, or for a negative number of iterations."""
    for name in ("warmup_iter", "rampup_interval"):
        if getattr(parameter, name) < 0:
            raise SolverError(f"{name} is {getattr(parameter, name)}; it must be 0 or more")
    if parameter.warmup_iter and parameter.rampup_interval:
        raise SolverError(
            "the solver gives warmup_iter (intel/caffe) and rampup_interval (NVIDIA/caffe); choose one warm-up"
        )


def is_warming_up(parameter: SolverParameter, iteration: int) -> bool:
    """Whether the rate of ``iteration`` is that of a warm-up."""
    return iteration < max(parameter.warmup_iter, parameter.rampup_interval)


def warm_up_rate(parameter: SolverParameter, iteration: int) -> float | None:
    """Return the rate of ``iteration`` during warm-up, None after it.

    intel/caffe: warmup_start_lr + (base_lr - warmup_start_lr) * iteration / warmup_iter
    NVCaffe:     rampup_lr + (base_lr - rampup_lr) * (iteration / rampup_interval) ^ 2
    """
    if not is_warming_up(parameter, iteration):
        return None
    if parameter.warmup_iter:
        start, part = parameter.warmup_start_lr, iteration / parameter.warmup_iter
    else:
        start, part = parameter.rampup_lr, (iteration / parameter.rampup_interval) ** 2
    return start + (parameter.base_lr - start) * part


def momentum_correction(parameter: SolverParameter, iteration: int) -> float:
    """Return by what to multiply momentum in ``iteration``: rate / (rate of the iteration before) while warmup_iter lasts.

    Caffe's history holds the rate, so that a growing rate would find the history too small (Goyal et al. 2017, remark 3;
    intel/caffe has it for SGD). 1 at iteration 0, after the warm-up, and where the rate before was 0.
    """
    if not 0 < iteration < parameter.warmup_iter:
        return 1.0
    before, now = warm_up_rate(parameter, iteration - 1), warm_up_rate(parameter, iteration)
    return now / before if now is not None and before else 1.0
