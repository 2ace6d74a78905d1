"""Write MNIST's own files as an LMDB: ``python -m paratrain.tools.mnist IMAGES LABELS OUT [--start 0] [--stop N]``.

The files are those of http://yann.lecun.com/exdb/mnist (gzipped or not): big-endian, images of magic 2051 with count,
rows and columns, labels of magic 2049 with count. Record i of the database is a Datum of digit ``start + i`` under the
key ``%08d`` of i, as Caffe's convert_mnist_data writes it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data import LmdbWriter
from paratrain.errors import DataError, ParatrainError
from paratrain.proto import Datum

__all__ = ["read_idx", "write_database"]

Path_ = str | os.PathLike[str]


def read_idx(path: Path_, axis_count: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with ``axis_count`` axes. Raises DataError where it is something else."""
    try:
        raw = Path(path).read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error}") from None
    header: npt.NDArray[Any] = np.frombuffer(content, ">u4", count=min(1 + axis_count, len(content) // 4))
    if len(header) < 1 + axis_count or header[0] != 0x0800 + axis_count:
        raise DataError(
            f"{os.fspath(path)}: is not an MNIST file of {axis_count} axes (magic number {0x0800 + axis_count})"
        )
    shape = tuple(int(axis) for axis in header[1:])
    values = np.frombuffer(content, np.uint8, offset=header.nbytes)
    if values.size != np.prod(shape):
        raise DataError(
            f"{os.fspath(path)}: announces {shape} values and holds {values.size}; the file is cut or damaged"
        )
    return values.reshape(shape)


def write_database(images: Path_, labels: Path_, target: Path_, start: int = 0, stop: int | None = None) -> int:
    """Write digits ``start`` to ``stop`` (not included; all where None) to an LMDB at ``target``; return their number."""
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{os.fspath(images)} holds {len(pixels)} images and {os.fspath(labels)} {len(classes)} labels")
    stop = len(pixels) if stop is None else stop
    if not 0 <= start < stop <= len(pixels):
        raise DataError(f"{os.fspath(images)}: records {start} to {stop} were asked for; it holds 0 to {len(pixels)}")
    datum = Datum(channels=1, height=pixels.shape[1], width=pixels.shape[2])
    with LmdbWriter(target) as database:
        for index in range(start, stop):
            datum.data, datum.label = pixels[index].tobytes(), int(classes[index])
            database.put(b"%08d" % (index - start), datum.SerializeToString())
    return stop - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Write MNIST's own files as an LMDB that Data layers read.")
    parser.add_argument("images", help="such as t10k-images-idx3-ubyte.gz")
    parser.add_argument("labels", help="such as t10k-labels-idx1-ubyte.gz")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--start", type=int, default=0, help="the first record to take")
    parser.add_argument("--stop", type=int, help="the record to stop before")
    options = parser.parse_args()
    try:
        count = write_database(options.images, options.labels, options.out, options.start, options.stop)
    except ParatrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{count} digits written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
