"""Which of its kernels cuDNN may use for a task, built and ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from paratrain.backends.cupy.cudnn.graph import ConvolutionTask, build_graph
from paratrain.backends.cupy.cudnn.library import UnsupportedError, library
from paratrain.backends.cupy.precision import Precision

__all__ = ["Plan", "built_plans", "refused_notes"]


@dataclass(frozen=True)
class Plan:
    """One of cuDNN's ways to compute a graph: the number it has there, and its name, which one version of cuDNN keeps."""

    graph: Any = field(repr=False)
    index: int
    name: str
    workspace_bytes: int


def refused_notes(precision: Precision, *, fast: bool = False) -> list[Any]:
    """Return the notes, as cuDNN calls them, of kernels that are not to be used.

    Those that do not give the same bits each time, unless ``fast``; and in FLOAT32 tensor cores, which would round the factors
    of products to TF32.
    """
    notes = library().numerical_note
    refused = [] if fast else [notes.NONDETERMINISTIC]
    return [*refused, notes.TENSOR_CORE] if precision is Precision.FLOAT32 else refused


def built_plans(task: ConvolutionTask, refused: list[Any], **target: Any) -> Iterator[Plan]:
    """Give the plans for a task, each built when it is asked for: first those that cuDNN expects to be quick, in that order,
    then those that always work. ``target`` is as in :func:`build_graph`. Raises UnsupportedError where there are none.
    """
    cudnn = library()
    try:
        graph = build_graph(task, **target)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        raise UnsupportedError(f"cuDNN has no plan for {task.key}: {_first_line(error)}") from None
    if refused:
        graph.deselect_numeric_notes(refused)
    reason, is_any = "none are left", False
    for index in range(graph.get_execution_plan_count()):
        try:
            graph.build_plan_at_index(index)  # refuses those that were deselected
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            reason = _first_line(error)
            continue
        is_any = True
        yield Plan(graph, index, graph.get_plan_name_at_index(index), graph.get_workspace_size_plan_at_index(index))
    if not is_any:
        raise UnsupportedError(f"cuDNN can build no plan for {task.key}: {reason}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
