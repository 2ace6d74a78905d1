"""The mean image of a database, as Caffe's compute_image_mean has it, bit for bit."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data import Database, datum_to_array
from paratrain.data.database import describe_record
from paratrain.data.datum import parse_datum
from paratrain.errors import DataError
from paratrain.proto import BlobProto
from paratrain.tools.work import Work, core_count, ordered_map

__all__ = ["channel_means", "compute_mean", "mean_blob"]

Mean = npt.NDArray[np.float32]


def compute_mean(database: Database, work: Work, *, thread_count: int | None = None) -> Mean:
    """Return the mean of all images of the database, (C, H, W).

    As in Caffe the sum is kept in single precision, in the order of the records, and divided at the end. Compressed
    images are decoded in ``thread_count`` threads (one for each core where None).

    Raises DataError, naming the record, for images of different shapes and records that cannot be read.
    """
    if not _is_encoded(database.get(0)):
        thread_count = 1  # handing raw pixels to a thread costs more than adding them up
    total: Mean | None = None
    values = (database.get(index) for index in range(len(database)))
    with contextlib.closing(ordered_map(_pixels, values, thread_count or core_count())) as records:
        for index, pixels in enumerate(records):
            if isinstance(pixels, DataError):
                raise DataError(f"{describe_record(database, index)}: {pixels}")
            if total is None:
                total = np.zeros(pixels.shape, np.float32)
            if pixels.shape != total.shape:
                raise DataError(
                    f"{describe_record(database, index)}: its image has the shape {pixels.shape}, those before it "
                    f"{total.shape}; a mean needs images of one size: convert them with resize_height and resize_width"
                )
            total += pixels
            work.advance()
    assert total is not None, "a database that is open has records"
    total /= np.float32(len(database))
    return total


def _is_encoded(value: bytes) -> bool:
    try:
        return parse_datum(value).encoded
    except DataError:
        return False


def _pixels(value: bytes) -> npt.NDArray[Any] | DataError:
    try:
        return datum_to_array(parse_datum(value))
    except DataError as error:
        return error


def mean_blob(mean: Mean) -> BlobProto:
    """The message that a ``mean_file`` holds."""
    channels, height, width = mean.shape
    return BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())


def channel_means(mean: Mean) -> list[float]:
    """The mean of each channel, summed in single precision one value after the other, as Caffe does."""
    sums = np.add.accumulate(mean.reshape(len(mean), -1), axis=1, dtype=np.float32)[:, -1]
    return [float(value) for value in sums / np.float32(mean[0].size)]
