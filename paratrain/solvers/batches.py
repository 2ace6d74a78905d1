"""Batches that follow the number of ranks: the prototxt's batch_size divided by it, or shared by more or fewer than planned."""

from __future__ import annotations

import logging
from collections.abc import Callable

from paratrain.errors import SolverError
from paratrain.proto import LayerParameter, NetParameter, filter_net

__all__ = ["divide_batches", "plan_passes", "share_batches"]

logger = logging.getLogger(__name__)

_Change = Callable[[str, int], int]
"""Takes what a batch is called and its size; returns the size that it gets."""


def divide_batches(parameter: NetParameter, rank_count: int) -> NetParameter:
    """Return the layers of the net's state, every batch divided by ``rank_count``: ``batch_size`` wherever a layer has
    one, and the first axis of what DummyData and Input make.

    Raises SolverError, naming the layer, for a batch that cannot be divided, and for a net that has none.
    """
    net = filter_net(parameter, parameter.state, report=logger.info)
    counts = [_change(layer, _divider(layer, rank_count)) for layer in net.layer]
    if not any(counts):
        raise SolverError(
            "--batch-mode global divides the batch_size of the net's data layers, and it has no such layer"
        )
    return net


def plan_passes(parameter: NetParameter, planned_count: int, rank_count: int, iter_size: int) -> int:
    """Return the ``iter_size`` with which ``rank_count`` ranks take the records of a step of ``planned_count`` ranks.

    It stays as it is where the batches can grow or shrink instead, which gives the same dropout; otherwise it is the one
    whose batches are nearest to the net's. Raises SolverError where the ranks cannot share the records evenly.
    """
    net = filter_net(parameter, parameter.state)
    batches = [size for layer in net.layer for size in _sizes(layer)]
    is_fixed = not batches or any(layer.type == "Python" and not layer.bottom for layer in net.layer)
    totals = [size * planned_count * iter_size for size in batches] or [planned_count * iter_size]
    choices = [
        passes
        for passes in range(1, min(totals) // rank_count + 1)
        if all(total % (rank_count * passes) == 0 for total in totals)
        and (not is_fixed or passes * rank_count == planned_count * iter_size)
    ]
    if not choices:
        what = (
            "whose batches cannot be changed" if is_fixed else f"{' and '.join(map(str, sorted(set(totals))))} records"
        )
        raise SolverError(
            f"a step of {planned_count} ranks, {what}, cannot be shared evenly by {rank_count} ranks (--batch-ranks "
            f"{planned_count}); start {planned_count} ranks, or a number that divides it"
        )
    wanted = planned_count * iter_size / rank_count  # passes with the net's own batches
    return min(choices, key=lambda passes: (passes != iter_size, abs(1 / passes - 1 / wanted)))


def share_batches(
    parameter: NetParameter, planned_count: int, rank_count: int, planned_passes: int, passes: int
) -> NetParameter:
    """Return the layers of the net's state with the batches that ``rank_count`` ranks take in each of ``passes``, where
    ``planned_count`` ranks would take the net's own in each of ``planned_passes``; `plan_passes` says which divide.
    """
    net = filter_net(parameter, parameter.state, report=logger.info)
    if planned_count * planned_passes != rank_count * passes:
        for layer in net.layer:
            _change(layer, lambda _, size: size * planned_count * planned_passes // (rank_count * passes))
    return net


def _sizes(layer: LayerParameter) -> list[int]:
    """The sizes of the layer's batches."""
    found: list[int] = []

    def note(_: str, size: int) -> int:
        found.append(size)
        return size

    _change(layer, note)
    return found


def _change(layer: LayerParameter, change: _Change) -> int:
    """Change the batches of a layer; return how many it has."""
    count = 0
    for field, settings in layer.ListFields():
        if "batch_size" in getattr(getattr(field, "message_type", None), "fields_by_name", {}):
            if settings.batch_size:
                settings.batch_size = change("batch_size", settings.batch_size)
                count += 1
        elif field.name in ("dummy_data_param", "input_param"):
            for shape in settings.shape:
                if shape.dim:
                    shape.dim[0] = change("the first axis", shape.dim[0])
                    count += 1
            for index, batch in enumerate(getattr(settings, "num", ())):
                settings.num[index] = change("num", batch)
                count += 1
    return count


def _divider(layer: LayerParameter, rank_count: int) -> _Change:
    def divide(what: str, batch: int) -> int:
        if batch % rank_count:
            below = batch - batch % rank_count
            choices = f"{below} or {below + rank_count}" if below else f"{rank_count}"
            raise SolverError(
                f"layer '{layer.name}' ({layer.type}): {what} is {batch}, which {rank_count} ranks cannot share evenly "
                f"(--batch-mode global); make it {choices}, or start another number of ranks"
            )
        return batch // rank_count

    return divide
