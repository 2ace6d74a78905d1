"""Checking the settings of a solver, and finding its nets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from paratrain.errors import ParatrainError
from paratrain.proto import SolverParameter
from paratrain.snapshot import check_writable, split_weights
from paratrain.solvers.checks import find_problems
from paratrain.solvers.factory import SOLVERS
from paratrain.solvers.nets import NetChoice, test_net_choices, train_net_choice

__all__ = ["history_count", "net_choices", "solver_problems"]


def solver_problems(parameter: SolverParameter) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the settings themselves and the files they name, nets left out."""
    yield from (str(error) for error in find_problems(parameter))
    yield from _error_of(lambda: SOLVERS.get(parameter.type))
    if parameter.type in SOLVERS:
        yield from (str(error) for error in SOLVERS.get(parameter.type).find_problems(parameter))
    for given in parameter.weights:
        for path in split_weights(given):
            if not Path(path).exists():
                yield f"weights: '{path}' does not exist, looked up from {Path.cwd()}"
    if parameter.snapshot_prefix and (parameter.snapshot or parameter.snapshot_after_train):
        yield from _error_of(lambda: check_writable(parameter.snapshot_prefix))


def net_choices(parameter: SolverParameter) -> tuple[list[tuple[NetChoice, str | None]], list[str]]:
    """Return the net to train and the nets to test, each with its file (None: it is written in the solver itself), and
    what is wrong with how the settings name them. The net to train comes first, or there are none.
    """
    trained: list[NetChoice] = []
    tested: list[NetChoice] = []
    problems = list(_error_of(lambda: trained.append(train_net_choice(parameter))))
    problems += _error_of(lambda: tested.extend(test_net_choices(parameter)))
    if not trained:
        return [], problems
    own = parameter.net if parameter.HasField("net") else None
    files = [parameter.train_net if parameter.HasField("train_net") else own]
    files += [*[None] * len(parameter.test_net_param), *parameter.test_net]
    files += [own] * (1 + len(tested) - len(files))
    return list(zip([*trained, *tested], files, strict=False)), problems


def history_count(solver_type: str) -> int:
    """How many values the solver remembers for each learnable one; SGD's where nobody knows the type."""
    return SOLVERS.get(solver_type if solver_type in SOLVERS else "SGD").history_count


def _error_of(run: Callable[[], object]) -> Iterator[str]:
    try:
        run()
    except ParatrainError as error:
        yield str(error)
