"""MNIST's own files as a database of Datums, as Caffe's convert_mnist_data writes it.

The files are those of http://yann.lecun.com/exdb/mnist (gzipped or not): big-endian, images of magic 2051 with count,
rows and columns, labels of magic 2049 with count. Fashion-MNIST, KMNIST and the like have the same form.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.databases import create_database
from paratrain.tools.work import Work

__all__ = ["idx_axes", "read_digits", "read_idx", "write_database", "write_digits"]

logger = logging.getLogger(__name__)

Path_ = str | os.PathLike[str]

_GZIP = b"\x1f\x8b"
_MAGIC = 0x0800  # unsigned bytes; the last byte is the number of axes


def idx_axes(path: Path_) -> int | None:
    """1 for a file that begins as one of labels does, gzipped or not, 3 for one of images; None for anything else."""
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(2)
        with (gzip.open if start == _GZIP else open)(path, "rb") as content:
            magic = int.from_bytes(content.read(4), "big")
    except (OSError, EOFError, zlib.error):
        return None
    return magic - _MAGIC if magic - _MAGIC in (1, 3) else None


def read_idx(path: Path_, axis_count: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with ``axis_count`` axes. Raises DataError where it is something else."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror}; looked up from {Path.cwd()})") from None
    try:
        content = gzip.decompress(raw) if raw[:2] == _GZIP else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{os.fspath(path)}: cannot be unzipped ({error}); the file is cut or damaged") from None
    header: npt.NDArray[Any] = np.frombuffer(content, ">u4", count=min(1 + axis_count, len(content) // 4))
    if len(header) < 1 + axis_count or header[0] != _MAGIC + axis_count:
        found = f"; it starts with {int(header[0])}" if len(header) else "; it is empty" if not content else ""
        what = {1: "labels", 3: "images"}.get(axis_count, f"{axis_count} axes")
        swapped = "; are images and labels swapped?" if len(header) and header[0] - _MAGIC in (1, 3) else ""
        raise DataError(
            f"{os.fspath(path)}: is not an MNIST file of {what}, which starts with {_MAGIC + axis_count}{found}{swapped}"
        )
    shape = tuple(int(axis) for axis in header[1:])
    values = np.frombuffer(content, np.uint8, offset=header.nbytes)
    if values.size != np.prod(shape):
        raise DataError(
            f"{os.fspath(path)}: announces {shape} values and holds {values.size}; the file is cut or damaged"
        )
    return values.reshape(shape)


def read_digits(
    images: Path_, labels: Path_, start: int = 0, stop: int | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return pixels (N, H, W) and labels (N,) of the digits ``start`` to ``stop`` (not included; all where None).

    Raises DataError for files that are not MNIST's or do not belong together, and for records that they do not have.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{os.fspath(images)} holds {len(pixels)} images and {os.fspath(labels)} {len(classes)} labels")
    stop = len(pixels) if stop is None else stop
    if not 0 <= start < stop <= len(pixels):
        raise DataError(f"{os.fspath(images)}: records {start} to {stop} were asked for; it holds 0 to {len(pixels)}")
    return pixels[start:stop], classes[start:stop]


def write_digits(
    target: Path_, pixels: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8], work: Work, *, backend: str = "lmdb"
) -> None:
    """Write pixels (N, H, W) and labels (N,) to a database at ``target``, under the keys ``%08d`` of 0 to N - 1."""
    logger.info("A total of %d items.", len(pixels))
    logger.info("Rows: %d Cols: %d", *pixels.shape[1:])
    datum = Datum(channels=1, height=pixels.shape[1], width=pixels.shape[2])
    with create_database(target, backend) as database:
        for index, (image, label) in enumerate(zip(pixels, classes, strict=True)):
            datum.data, datum.label = image.tobytes(), int(label)
            database.put(b"%08d" % index, datum.SerializeToString())
            work.advance()


def write_database(images: Path_, labels: Path_, target: Path_, start: int = 0, stop: int | None = None) -> int:
    """Write the LMDB of digits ``start`` to ``stop`` (not included; all where None); return their number. DataError."""
    pixels, classes = read_digits(images, labels, start, stop)
    with Work(len(pixels), "digits", log_every=0) as work:
        write_digits(target, pixels, classes, work)
    return len(pixels)
