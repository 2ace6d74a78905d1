"""One batch for all ranks: the prototxt's batch_size divided by their number."""

from __future__ import annotations

import logging

from paratrain.errors import SolverError
from paratrain.proto import LayerParameter, NetParameter, filter_net

__all__ = ["divide_batches"]

logger = logging.getLogger(__name__)


def divide_batches(parameter: NetParameter, rank_count: int) -> NetParameter:
    """Return the layers of the net's state, every batch divided by ``rank_count``: ``batch_size`` wherever a layer has
    one, and the first axis of what DummyData and Input make.

    Raises SolverError, naming the layer, for a batch that cannot be divided, and for a net that has none.
    """
    net = filter_net(parameter, parameter.state, report=logger.info)
    counts = [_divide(layer, rank_count) for layer in net.layer]
    if not any(counts):
        raise SolverError(
            "--batch-mode global divides the batch_size of the net's data layers, and it has no such layer"
        )
    return net


def _divide(layer: LayerParameter, rank_count: int) -> int:
    """Divide the batches of a layer; return how many it has."""
    count = 0
    for field, settings in layer.ListFields():
        if "batch_size" in getattr(getattr(field, "message_type", None), "fields_by_name", {}):
            if settings.batch_size:
                settings.batch_size = _share(layer, "batch_size", settings.batch_size, rank_count)
                count += 1
        elif field.name in ("dummy_data_param", "input_param"):
            for shape in settings.shape:
                if shape.dim:
                    shape.dim[0] = _share(layer, "the first axis", shape.dim[0], rank_count)
                    count += 1
            for index, batch in enumerate(getattr(settings, "num", ())):
                settings.num[index] = _share(layer, "num", batch, rank_count)
                count += 1
    return count


def _share(layer: LayerParameter, what: str, batch: int, rank_count: int) -> int:
    if batch % rank_count:
        below = batch - batch % rank_count
        choices = f"{below} or {below + rank_count}" if below else f"{rank_count}"
        raise SolverError(
            f"layer '{layer.name}' ({layer.type}): {what} is {batch}, which {rank_count} ranks cannot share evenly "
            f"(--batch-mode global); make it {choices}, or start another number of ranks"
        )
    return batch // rank_count
