"""Images that a list names, as a database of Datums: what Caffe's convert_imageset writes, byte for byte."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from paratrain import random
from paratrain.data import images
from paratrain.data.image_list import ListedImage
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.databases import create_database
from paratrain.tools.work import Work, core_count, ordered_map

__all__ = ["Conversion", "ImageSettings", "convert_images", "shuffled"]

logger = logging.getLogger(__name__)

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class ImageSettings:
    """How images are stored: ``gray`` in 1 channel instead of 3; resized to ``height`` x ``width`` unless these are 0.

    With ``encoded`` they are stored compressed, as ``encode_type`` (png, jpg ...) or as what the name of each file ends in.
    A file that has this type already and is not resized is stored as it is.
    """

    gray: bool = False
    height: int = 0
    width: int = 0
    encoded: bool = False
    encode_type: str = ""

    def check(self) -> None:
        """Raise DataError for a size of which only one side is given, and for a type that OpenCV does not write."""
        if (self.height > 0) != (self.width > 0):
            raise DataError(f"resize_height is {self.height} and resize_width {self.width}; give both, or neither")
        images.load_opencv()
        if self.encode_type:
            images.encode(np.zeros((1, 8, 8), np.uint8), self.encode_type)


@dataclass
class Conversion:
    """What was converted: how many records were written, and the images that could not be read."""

    count: int = 0
    skipped: list[ListedImage] = field(default_factory=list)


def shuffled(listed: Sequence[ListedImage], *key: int | str) -> list[ListedImage]:
    """Return the images in an order that depends on the key alone."""
    return [listed[int(index)] for index in random.permutation(random.hash_key(*key, "shuffle"), len(listed))]


def convert_images(
    root: str,
    listed: Sequence[ListedImage],
    target: Path_,
    settings: ImageSettings,
    work: Work,
    *,
    backend: str = "lmdb",
    check_size: bool = False,
    stop_on_bad: bool = False,
    thread_count: int | None = None,
) -> Conversion:
    """Write a database of the images; ``root`` is put in front of each path as it is. Return what was done.

    Keys are Caffe's: eight digits of the place in ``listed``, ``_`` and the path; what cannot be read leaves a gap. Images
    are decoded in ``thread_count`` threads (one for each core where None). The database is whole or not there.

    Raises DataError for an image that cannot be read, with ``stop_on_bad``; for one of another size than the first, with
    ``check_size``; where none can be read; and where the database cannot be written.
    """
    settings.check()
    thread_count = core_count() if thread_count is None else thread_count
    done = Conversion()
    first_shape: tuple[int, ...] | None = None
    make = partial(_make_record, root, settings)
    made = contextlib.closing(ordered_map(make, listed, thread_count))
    with create_database(target, backend) as database, made as records:
        for index, (image, record) in enumerate(zip(listed, records, strict=True)):
            if record is None:
                continue
            if isinstance(record, DataError):
                if stop_on_bad:
                    raise DataError(f"{image.where}: {record}")
                logger.error("Could not open or find file %s (%s: %s)", root + image.path, image.where, record)
                done.skipped.append(image)
                continue
            value, shape = record
            if check_size and first_shape is not None and shape != first_shape:
                raise DataError(
                    f"{image.where}: {root + image.path} has (C, H, W) {shape}, and the first image {first_shape}; "
                    "check_size wants them equal: resize with resize_height and resize_width"
                )
            first_shape = first_shape or shape
            database.put(b"%08d_%s" % (index, os.fsencode(image.path)), value)
            work.advance()
        if not database.count:
            raise DataError(
                f"none of the {len(done.skipped):,} images can be read; nothing is written to {os.fspath(target)}"
            )
        done.count = database.count
    return done


Record = tuple[bytes, tuple[int, ...]]
"""The bytes of a Datum, and (C, H, W)."""


def _make_record(root: str, settings: ImageSettings, image: ListedImage) -> Record | DataError | None:
    """Read one image and store it in a Datum, in a worker thread. None for an empty line; an error is handed back."""
    if not image.path:
        return None
    try:
        return _encode_record(root, settings, image)
    except DataError as error:
        return error


def _encode_record(root: str, settings: ImageSettings, image: ListedImage) -> Record:
    file = images.read_image_file(image.path, root)
    pixels = images.decode(file, color=not settings.gray)
    is_resized = settings.height > 0
    if is_resized:
        pixels = images.resize(pixels, settings.height, settings.width)
    shape = pixels.shape
    if not settings.encoded and not settings.encode_type:
        datum = Datum(channels=shape[0], height=shape[1], width=shape[2], label=image.label)
        datum.data = pixels.tobytes()
        datum.encoded = False
        return datum.SerializeToString(), shape
    kind = Path(image.path).suffix[1:].lower()
    wanted = settings.encode_type.lower() or kind
    if not wanted:
        raise DataError("its name does not end in a type such as .jpg; say how to store it with encode_type")
    as_it_is = not is_resized and wanted in (kind, {"jpeg": "jpg"}.get(kind))
    datum = Datum(data=file if as_it_is else images.encode(pixels, wanted), label=image.label, encoded=True)
    return datum.SerializeToString(), shape
