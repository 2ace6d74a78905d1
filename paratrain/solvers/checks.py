"""Settings of a solver that are missing, out of range or have no meaning here: found before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterator

from paratrain.errors import ParatrainError, SolverError
from paratrain.proto import SolverParameter, fork_of
from paratrain.random import entropy
from paratrain.solvers.local_rates import find_local_rate_problems
from paratrain.solvers.lr_policy import check_policy
from paratrain.solvers.momentum_policy import find_policy_problems

__all__ = ["check_parameter", "choose_seed", "find_problems", "left_out_fields"]

_AT_LEAST = {"average_loss": 1, "iter_size": 1, "max_iter": 0, "display": 0, "snapshot": 0, "test_interval": 0}
_FINITE = ("base_lr", "momentum", "weight_decay", "delta")
_REGULARIZATIONS = ("L1", "L2")

# Fields of Caffe's forks that are followed: warm-up, policies of rate, momentum and decay, layer-wise rates.
_FOLLOWED = {"plateau_winsize", "rampup_interval", "rampup_lr", "min_lr", "warmup_iter", "warmup_start_lr"} | {
    "momentum_policy",
    "max_momentum",
    "momentum_power",
    "weight_decay_policy",
    "weight_decay_power",
    "max_weight_decay",
    "larc",
    "larc_policy",
    "larc_eta",
    "larc_turbo",
    "local_lr_auto",
    "local_gw_ratio",
    "stagelr",
    "stageiter",
}

# Fields of Caffe's forks that do not change what is learned: which library computes, how results are shown or stored.
_LEFT_OUT = {"ap_version", "engine", "eval_type", "per_parameter_reduce", "richness", "group_id"} | {
    "show_per_class_result",
    "solver_data_type",
    "store_blobs_in_old_format",
}


def check_parameter(parameter: SolverParameter) -> None:
    """Check everything about the settings that does not need the nets.

    Raises SolverError, naming the fields and what they hold; UnknownNameError for an unknown learning-rate policy.
    """
    for problem in find_problems(parameter):
        raise problem


def find_problems(parameter: SolverParameter) -> Iterator[ParatrainError]:
    """Yield an error for everything that is wrong with the settings, as far as it does not need the nets."""
    try:
        check_policy(parameter)
    except ParatrainError as error:
        yield error
    if not parameter.HasField("base_lr") and parameter.lr_policy != "multifixed":
        yield SolverError("base_lr is missing: without it the learning rate is 0, and nothing would be learned")
    for name, least in _AT_LEAST.items():
        value = getattr(parameter, name)
        if value < least:
            yield SolverError(f"{name} is {value}; it must be {least} or more")
    for name in _FINITE:
        number = getattr(parameter, name)
        if not (math.isfinite(number) and number >= 0):
            yield SolverError(f"{name} is {number:g}; it must be 0 or more, and finite")
    if parameter.stepsize < 0:
        yield SolverError(f"stepsize is {parameter.stepsize}; it counts iterations and cannot be negative")
    if parameter.regularization_type not in _REGULARIZATIONS:
        yield SolverError(
            f"unknown regularization_type '{parameter.regularization_type}'; known: {', '.join(_REGULARIZATIONS)}"
        )
    if parameter.HasField("clip_gradients") and parameter.clip_gradients == 0:
        yield SolverError("clip_gradients is 0, which would stop all learning; give the largest norm allowed")
    if math.isnan(parameter.clip_gradients):
        yield SolverError("clip_gradients is nan; give the largest norm allowed")
    if parameter.snapshot and not parameter.snapshot_prefix:
        yield SolverError(f"snapshot is {parameter.snapshot}, but there is no snapshot_prefix to name the files by")
    yield from find_policy_problems(parameter)
    yield from find_local_rate_problems(parameter)
    # What this version would have to ignore is refused: training would not be what the file asks for.
    for field, _ in parameter.ListFields():
        fork = fork_of(field)
        if fork is not None and field.name not in _LEFT_OUT | _FOLLOWED:
            yield SolverError(
                f"{field.name} is a field of {fork} that this version does not know to follow; leave it out"
            )


def choose_seed(parameter: SolverParameter, seed: int | None, rank_count: int) -> int:
    """Return the seed of a run: the one given, that of the settings, or one that nobody chose.

    Raises SolverError where ranks would each draw their own.
    """
    if seed is None:
        seed = parameter.random_seed
        if seed < 0 and rank_count > 1:
            raise SolverError("ranks must start from the same random numbers: give random_seed, or seed to each")
        seed = entropy() if seed < 0 else seed
    return seed


def left_out_fields(parameter: SolverParameter) -> list[str]:
    """The fields of Caffe's forks that are given, and left out since they do not change what is learned."""
    return [field.name for field, _ in parameter.ListFields() if field.name in _LEFT_OUT]
