"""What a net makes of records, blob by blob, as databases: Caffe's extract_features."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from paratrain.errors import DataError, NetError
from paratrain.net import Net
from paratrain.proto import Datum
from paratrain.registry import nearest
from paratrain.tools.databases import create_database
from paratrain.tools.work import Work

__all__ = ["check_blobs", "extract_features"]

logger = logging.getLogger(__name__)

_LOG_EVERY = 1000
_MOST_AXES = 4


def check_blobs(net: Net, names: Sequence[str]) -> None:
    """Raise NetError for the first name that is no blob of the net, or one that has no row for each sample."""
    for name in names:
        if name not in net.blobs:
            close = nearest(name, list(net.blobs))
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(net.blobs)}"
            raise NetError(f"the net has no blob '{name}'; {hint}")
        shape = net.blobs[name].shape
        if not 1 <= len(shape) <= _MOST_AXES:
            raise NetError(
                f"blob '{name}' has the shape {shape}: a record holds (C, H, W) of each sample, so that features have one "
                f"axis for the samples and {_MOST_AXES - 1} more at most"
            )


def extract_features(
    net: Net, blobs: Sequence[str], databases: Sequence[str], batch_count: int, backend: str, work: Work
) -> list[int]:
    """Run ``batch_count`` batches forward and write each of ``blobs`` to the database of the same place; return how many
    records each has got.

    A record is a sample: a Datum of its (C, H, W) with ``float_data``, axes that it lacks being 1, under the key
    ``0000000000`` and so on. Databases take their names when all are whole.

    Raises NetError for unknown blobs, DataError where there are not as many databases as blobs, or one exists already.
    """
    check_blobs(net, blobs)
    if len(blobs) != len(databases):
        raise DataError(
            f"{len(blobs)} blobs ({', '.join(blobs)}) and {len(databases)} databases ({', '.join(databases)}); name a "
            "database for each blob"
        )
    if len(set(databases)) < len(databases):
        raise DataError(f"a database is named twice: {', '.join(databases)}")
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(create_database(path, backend)) for path in databases]
        for _ in range(batch_count):
            net.forward()
            for name, writer in zip(blobs, writers, strict=True):
                values = net.blobs[name].data
                shape = (*values.shape[1:], 1, 1, 1)[:3]
                for row in values.reshape(len(values), -1):
                    record = Datum(channels=shape[0], height=shape[1], width=shape[2], float_data=row.tolist())
                    writer.put(b"%010d" % writer.count, record.SerializeToString())
                    if writer.count % _LOG_EVERY == 0:
                        logger.info("Extracted features of %d query images for feature blob %s", writer.count, name)
            work.advance()
    for name, writer in zip(blobs, writers, strict=True):
        logger.info("Extracted features of %d query images for feature blob %s", writer.count, name)
    return [writer.count for writer in writers]
