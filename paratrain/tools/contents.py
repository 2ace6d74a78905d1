"""What a source of labelled images holds: a database, a list of images, MNIST's own files; looked at record by record."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain.data import Database, LevelDbReader, datum_to_array, images
from paratrain.data.datum import parse_datum
from paratrain.data.image_list import ListedImage
from paratrain.errors import DataError
from paratrain.tools.databases import stored_bytes
from paratrain.tools.work import Work, core_count, ordered_map

__all__ = ["ArraySource", "Contents", "DatabaseSource", "ListSource", "Record", "Source", "look_through", "spread"]

Pixels = npt.NDArray[Any]

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
)


@dataclass(frozen=True)
class Record:
    """One record: pixels (C, H, W), how it is stored (``uint8``, ``float32``, ``JPEG`` ...), and its label."""

    pixels: Pixels
    stored_as: str
    label: int | None


class Source(Protocol):
    """Records, numbered from 0. ``fetch`` is for one thread; ``parse`` takes what that returned, in any thread."""

    kind: str
    path: str

    def __len__(self) -> int: ...
    def key(self, index: int) -> str:
        """The name of a record. Raises DataError."""

    def fetch(self, index: int) -> Any:
        """Get a record from where it lies. Raises DataError."""

    def parse(self, fetched: Any) -> Record:
        """Make sense of a record. Raises DataError."""


class DatabaseSource:
    """The Datums of an open database, which stays the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.path
        self.kind = "LevelDB" if isinstance(database, LevelDbReader) else "LMDB"

    def __len__(self) -> int:
        return len(self._database)

    def key(self, index: int) -> str:
        return self._database.key(index).decode("utf-8", "backslashreplace")

    def fetch(self, index: int) -> bytes:
        return self._database.get(index)

    def parse(self, fetched: bytes) -> Record:
        datum = parse_datum(fetched)
        image_type = _image_type(datum.data) if datum.encoded else None
        pixels = datum_to_array(datum)
        return Record(pixels, image_type or str(pixels.dtype), datum.label if datum.HasField("label") else None)


class ListSource:
    """The images that a list names."""

    kind = "list of images"

    def __init__(self, path: str, listed: Sequence[ListedImage], root: str) -> None:
        self.path = path
        self._listed = [image for image in listed if image.path]
        self._root = root

    def __len__(self) -> int:
        return len(self._listed)

    def key(self, index: int) -> str:
        image = self._listed[index]
        return f"{image.where} {os.fsencode(image.path).decode('utf-8', 'backslashreplace')}"

    def fetch(self, index: int) -> ListedImage:
        return self._listed[index]

    def parse(self, fetched: ListedImage) -> Record:
        file = images.read_image_file(fetched.path, self._root)
        stored_as = _image_type(file)
        return Record(images.decode(file), stored_as, fetched.label)

    def labels(self) -> Counter[int]:
        """The labels of all images, none of which is read."""
        return Counter(image.label for image in self._listed)


class ArraySource:
    """Images (N, H, W) of MNIST's own files, and labels (N,) where they are known."""

    kind = "MNIST file of images"

    def __init__(self, path: str, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8] | None) -> None:
        self.path = path
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._pixels)

    def key(self, index: int) -> str:
        return f"{index}"

    def fetch(self, index: int) -> int:
        return index

    def parse(self, fetched: int) -> Record:
        label = None if self._labels is None else int(self._labels[fetched])
        return Record(self._pixels[fetched][np.newaxis], "uint8", label)


@dataclass
class Contents:
    """What was found: counts by shape, by how records are stored and by label, of the ``read_count`` that were read.

    ``damaged`` has the key of each record that cannot be used, and why. ``notes`` are lines of a source's own.
    """

    path: str
    kind: str
    size_bytes: int
    count: int
    read_count: int = 0
    keys: tuple[str, str] | None = None
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    stored_as: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    datasets: list[tuple[str, tuple[int, ...], str]] = field(default_factory=list)


def spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` of the numbers 0 to ``count - 1``, evenly spread, or all where there are no more."""
    return list(range(count)) if wanted >= count else [place * count // wanted for place in range(wanted)]


def look_through(source: Source, indices: Sequence[int], work: Work, thread_count: int | None = None) -> Contents:
    """Read the records of these numbers, which ascend, and count what they are. Damaged ones are noted, not raised."""
    found = Contents(source.path, source.kind, stored_bytes(source.path), len(source))
    if len(source):
        with contextlib.suppress(DataError):
            found.keys = source.key(0), source.key(len(source) - 1)

    def fetch_all() -> Iterator[Any]:
        for index in indices:
            try:
                yield source.fetch(index)
            except DataError as error:
                yield error

    def look(fetched: Any) -> tuple[tuple[int, ...], str, int | None] | DataError:
        if isinstance(fetched, DataError):
            return fetched
        try:
            record = source.parse(fetched)
        except DataError as error:
            return error
        return record.pixels.shape, record.stored_as, record.label

    with contextlib.closing(ordered_map(look, fetch_all(), thread_count or core_count())) as looked:
        for index, seen in zip(indices, looked, strict=True):
            found.read_count += 1
            work.advance()
            if isinstance(seen, DataError):
                found.damaged.append((_key(source, index), str(seen)))
                continue
            shape, stored_as, label = seen
            found.shapes[shape] += 1
            found.stored_as[stored_as] += 1
            if label is not None:
                found.labels[label] += 1
    if isinstance(source, ListSource):
        found.labels = source.labels()
        found.size_bytes = Path(source.path).stat().st_size
    return found


def _key(source: Source, index: int) -> str:
    try:
        return source.key(index)
    except DataError:
        return f"record {index}"


def _image_type(data: bytes) -> str:
    """The name of an image's format. Raises DataError for a JPEG whose end is missing, which OpenCV may fill with gray."""
    name = next((name for signature, name in _SIGNATURES if data.startswith(signature)), "image")
    # Inside the scans of a JPEG no marker can appear by chance: the last scan is followed by the end, or is cut.
    if name == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError("the JPEG is cut off: its end is missing")
    return name
