"""Where records come from: databases of Datums and lists of image files, read one record at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from paratrain.data import images
from paratrain.data.database import Database, describe_record
from paratrain.data.datum import datum_to_array, parse_datum
from paratrain.data.datum_layout import DatumLayout
from paratrain.data.image_list import read_list
from paratrain.errors import DataError

__all__ = ["DatumSource", "ImageListSource", "RecordSource"]

Array = npt.NDArray[Any]


class RecordSource(Protocol):
    """Labelled images in a fixed order, numbered from 0; for any number of threads at once."""

    def __len__(self) -> int: ...
    def read(self, record: int) -> tuple[Array, int]:
        """Return pixels, (C, H, W) uint8 or float32, and label. Raises DataError, which names the record."""

    def read_alike(self, records: Sequence[int]) -> tuple[Array, list[int]] | None:
        """Return the pixels of several records, (N, C, H, W), and their labels, as ``read`` would; None where reading them
        at once is not possible, or not faster. May raise DataError.
        """

    def key(self, record: int) -> str:
        """Return the name by which the source knows a record."""

    def describe(self, record: int) -> str:
        """Name a record, and its source, in a message."""

    def close(self) -> None:
        """Free files; a second call does nothing."""


class DatumSource:
    """The Datums of a database, which it owns. ``color`` says how compressed images are decoded (datum_to_array)."""

    def __init__(self, database: Database, color: bool | None = None) -> None:
        self._database = database
        self._color = color
        self._layout: DatumLayout | None = None
        self._is_first = True

    def __len__(self) -> int:
        return len(self._database)

    def read(self, record: int) -> tuple[Array, int]:
        value = self._database.get(record)
        try:
            datum = parse_datum(value)
            pixels = datum_to_array(datum, self._color)
        except DataError as error:
            raise DataError(f"{self.describe(record)}: {error}") from None
        if self._is_first:
            self._layout = DatumLayout.of(value, datum)
            self._is_first = False
        return pixels, datum.label

    def read_alike(self, records: Sequence[int]) -> tuple[Array, list[int]] | None:
        layout = self._layout
        return None if layout is None else layout.read(self._database.get_many(records))

    def key(self, record: int) -> str:
        return self._database.key(record).decode("utf-8", "backslashreplace")

    def describe(self, record: int) -> str:
        return describe_record(self._database, record)

    def close(self) -> None:
        self._database.close()


class ImageListSource:
    """The images that a text file lists (:func:`~paratrain.data.image_list.read_list`).

    ``root_folder`` is put in front of their paths. Images are decoded to 3 channels, or to 1 where ``color`` is False, and
    resized to ``size``, (height, width), if it is given. The images themselves are looked for when they are read. Raises
    DataError, naming file and line, for a line that is not the path of an image and its label.
    """

    def __init__(
        self, path: str, *, root_folder: str = "", color: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        self.path = path
        self._root_folder = root_folder
        self._color = color
        self._size = size
        self._images = [image for image in read_list(path) if image.path]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, record: int) -> tuple[Array, int]:
        try:
            pixels = images.decode(self.fetch(record), color=self._color)
            if self._size:
                pixels = images.resize(pixels, *self._size)
        except DataError as error:
            raise DataError(f"{self.describe(record)}: {error}") from None
        return pixels, self._images[record].label

    def fetch(self, record: int) -> bytes:
        """Return the bytes of an image's file. Raises DataError, which names the file."""
        return images.read_image_file(self._images[record].path, self._root_folder)

    def read_alike(self, records: Sequence[int]) -> tuple[Array, list[int]] | None:
        return None

    def key(self, record: int) -> str:
        return self._images[record].path

    def describe(self, record: int) -> str:
        image = self._images[record]
        return f"{image.where} ('{image.path}')"

    def close(self) -> None:
        """Nothing: no file stays open."""
