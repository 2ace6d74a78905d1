"""Where the data layers of a net stand, and how to bring them there again, on as many ranks or on another number.

A layer takes part that has ``next_batch``, a number, and ``seek(batch)``; a user's Python layer may have both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paratrain.errors import SnapshotError
from paratrain.layers.base import Layer
from paratrain.net import Net
from paratrain.snapshot.training_state import DataPosition, TrainingState

__all__ = ["DataPlan", "move_to", "plan_data", "positions", "reopen"]

logger = logging.getLogger(__name__)

# The field of LayerParameter that gives the batch of each type of layer that can be opened again.
_SETTINGS = {
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
}


@dataclass(frozen=True)
class DataPlan:
    """How the ranks share the records of a step."""

    iter_size: int
    batch_sizes: Mapping[str, int]
    """Records in the batch of one rank, by layer."""


def positions(net: Net) -> list[DataPosition]:
    """Where the data layers of ``net`` stand."""
    found = []
    for index, layer in _layers(net):
        batch, batch_size = layer.next_batch, _batch_size(net, index)  # type: ignore[attr-defined]
        count = layer.record_count
        epoch = batch * batch_size * net.context.size // count if count > 0 else None
        found.append(DataPosition(layer.name, batch, batch_size, epoch, _order(layer)))
    return found


def plan_data(recorded: TrainingState, net: Net, ranks: int, iter_size: int, path: str) -> DataPlan:
    """Return how ``ranks`` ranks take the recorded number of records in each step, or raise SnapshotError.

    On as many ranks as recorded, and where the number is the same as it is, the settings stay. Else the batch of each
    rank is changed, or, where it does not divide or a layer's batch is fixed, ``iter_size``.
    """
    batches, fixed = {}, []
    for index, layer in _layers(net):
        batches[layer.name] = _batch_size(net, index)
        if layer.type not in _SETTINGS:
            fixed.append(layer.name)
    shared = [position for position in recorded.data if position.layer in batches]
    wanted = {position.layer: position.batch_size * recorded.ranks * recorded.iter_size for position in shared}
    stay = DataPlan(iter_size, batches)
    if not wanted and ranks != recorded.ranks:
        logger.warning("%s names no data layer of this net: the records of each step are those of the settings", path)
    if all(batches[name] * ranks * iter_size == count for name, count in wanted.items()):
        return stay
    records = ", ".join(sorted({f"{count}" for count in wanted.values()}))
    if ranks == recorded.ranks:
        logger.warning(
            "%s was written with %s records in each step; the settings are others now, and are followed", path, records
        )
        return stay
    choices = [
        DataPlan(passes, {name: count // (ranks * passes) for name, count in wanted.items()})
        for passes in range(1, min(wanted.values()) + 1)
        if all(count % (ranks * passes) == 0 for count in wanted.values())
    ]
    choices = [
        choice
        for choice in choices
        if all(choice.batch_sizes.get(name, batches[name]) == batches[name] for name in fixed)
    ]
    if not choices:
        hint = f"; the batch of layer '{fixed[0]}' cannot be changed" if fixed else ""
        raise SnapshotError(
            f"{path}: was written on {recorded.ranks} ranks, with {records} records in each step; {ranks} ranks cannot "
            f"share them evenly{hint}. Start as many ranks as then, or a number that divides the records; or go on from the "
            "weights alone with -weights"
        )
    before = {position.layer: position.batch_size for position in shared}
    # The recorded iter_size gives the same dropout; otherwise the batch nearest to the recorded one.
    return min(
        choices,
        key=lambda choice: (
            choice.iter_size != recorded.iter_size,
            sum(abs(size - before[name]) for name, size in choice.batch_sizes.items()),
        ),
    )


def reopen(net: Net, batch_sizes: Mapping[str, int], seed: int) -> None:
    """Give the net's data layers these batches, and the whole net this seed; all begin anew where something changes."""
    if all(size == _batch_size(net, index) for index, size in _changes(net, batch_sizes)) and net.context.seed == seed:
        return
    net.context.seed = seed
    for layer in net.layers:
        layer.context.seed = seed
    for index, layer in _layers(net):
        settings = _SETTINGS.get(layer.type)
        if settings is not None:
            layer.close()
            getattr(layer.parameter, settings).batch_size = batch_sizes.get(layer.name, _batch_size(net, index))
            layer.setup(net.bottoms[index], net.tops[index])
    net.reshape()


def move_to(net: Net, recorded: Sequence[DataPosition], ranks: int) -> None:
    """Bring the data layers to the recorded positions, which ``ranks`` ranks had reached."""
    by_name = {position.layer: position for position in recorded}
    for index, layer in _layers(net):
        position = by_name.get(layer.name)
        if position is None:
            logger.warning("Layer '%s' is not in the snapshot: it stays where it is", layer.name)
            continue
        order = _order(layer)
        if position.order is not None and order != position.order and net.context.rank == 0:
            logger.warning(
                "Layer '%s' reads its records %s, and read them %s when the snapshot was written: some will come again or not "
                "at all in this epoch. Give the same shuffle, in the net or by --shuffle, to go on where it was",
                layer.name,
                order or "in an order of its own",
                position.order,
            )
        records = position.next_batch * position.batch_size * ranks
        batch, rest = divmod(records, _batch_size(net, index) * net.context.size)
        if rest:
            logger.warning(
                "Layer '%s' reads %d records again, since its batches have another size now", layer.name, rest
            )
        layer.seek(batch)  # type: ignore[attr-defined]


def _layers(net: Net) -> list[tuple[int, Layer]]:
    return [
        (index, layer)
        for index, layer in enumerate(net.layers)
        if isinstance(getattr(layer, "next_batch", None), int) and callable(getattr(layer, "seek", None))
    ]


def _order(layer: Layer) -> str | None:
    settings = getattr(layer.parameter, _SETTINGS.get(layer.type, ""), None)
    if settings is None or not hasattr(settings, "shuffle"):
        return None
    window = getattr(settings, "shuffle_window", 0)
    return f"with shuffle_window: {window}" if window else "with shuffle: true" if settings.shuffle else "in order"


def _changes(net: Net, batch_sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    return [(index, batch_sizes[layer.name]) for index, layer in _layers(net) if layer.name in batch_sizes]


def _batch_size(net: Net, index: int) -> int:
    tops = net.tops[index]
    return tops[0].shape[0] if tops and tops[0].shape else 1
