"""Which of its kernels cuDNN may use for a task, built and ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from paratrain.backends.cupy.cudnn.graph import ConvolutionTask, build_graph
from paratrain.backends.cupy.cudnn.library import UnsupportedError, failures, library
from paratrain.backends.cupy.precision import Precision

__all__ = ["Plan", "built_plans", "refused_notes"]


@dataclass(frozen=True)
class Plan:
    """One of cuDNN's ways to compute a graph: the number it has there, its name, which one version of cuDNN keeps, and whether it
    was found among those that use tensor cores.
    """

    graph: Any = field(repr=False)
    index: int
    name: str
    workspace_bytes: int
    has_tensor_cores: bool = False


def refused_notes(precision: Precision, *, fast: bool = False) -> list[Any]:
    """Return the notes, as cuDNN calls them, of kernels that are not to be used.

    Those that do not give the same bits each time, unless ``fast``; and in FLOAT32 tensor cores, which would round the factors
    of products to TF32.
    """
    notes = library().numerical_note
    refused = [] if fast else [notes.NONDETERMINISTIC]
    return [*refused, notes.TENSOR_CORE] if precision is Precision.FLOAT32 else refused


def built_plans(
    task: ConvolutionTask,
    refused: list[Any],
    *,
    tensor_cores_first: bool = True,
    only: str | None = None,
    **target: Any,
) -> Iterator[Plan]:
    """Give the plans for a task, each built when it is asked for and each name once: first those that cuDNN expects to be quick,
    in that order, then those that always work. ``target`` is as in :func:`build_graph`. Raises UnsupportedError where there are
    none. With ``only`` a name no other is built: that may mean compiling.

    Where tensor cores are allowed, plans that use them come before others, which cuDNN names first for some images of three
    channels; not so for depthwise tasks, which would leave tensor cores idle, nor without ``tensor_cores_first``. Tasks that end
    in a bias have no other plans: these would be slower than a convolution with tensor cores and a bias of its own.
    """
    cudnn = library()
    tensor_core, quick = cudnn.numerical_note.TENSOR_CORE, [cudnn.heur_mode.A]
    may_choose = tensor_core not in refused and not task.is_depthwise
    rounds = [(quick, [tensor_core])] if may_choose and (tensor_cores_first or task.ends_in_bias) else []
    if not (may_choose and task.ends_in_bias):
        rounds.append(([*quick, cudnn.heur_mode.FALLBACK], []))
    reason, names = "none are left", set()
    for modes, wanted in rounds:
        try:
            graph = build_graph(task, **target)
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans(modes)
        except failures() as error:
            reason = _first_line(error)
            continue
        if wanted:
            graph.select_numeric_notes(wanted)
        if refused:
            graph.deselect_numeric_notes(refused)
        for index in range(graph.get_execution_plan_count()):
            name = graph.get_plan_name_at_index(index)
            if name in names or only not in (None, name):
                continue
            try:
                graph.build_plan_at_index(index)  # refuses those that were deselected
            except failures() as error:
                reason = _first_line(error)
                continue
            names.add(name)
            yield Plan(graph, index, name, graph.get_workspace_size_plan_at_index(index), bool(wanted))
    if not names:
        raise UnsupportedError(f"cuDNN has no plan for {task.key}: {reason}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
