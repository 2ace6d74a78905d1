"""Which kind of data a path is, going by what lies there."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from paratrain.data.hdf5 import is_hdf5
from paratrain.data.image_list import read_list
from paratrain.errors import DataError
from paratrain.proto import describe_content
from paratrain.tools.contents import ArraySource, Contents, DatabaseSource, ListSource, Source
from paratrain.tools.databases import open_any_database, stored_bytes
from paratrain.tools.hdf5_contents import look_through_hdf5
from paratrain.tools.mnist import idx_axes, read_idx

__all__ = ["open_contents"]

_BEGINNING_BYTES = 4096
_EXPECTED = (
    "an LMDB (a folder that holds data.mdb), a LevelDB (one that holds CURRENT), an HDF5 file, a text file that lists images "
    "and labels or HDF5 files, or a file of MNIST"
)


@contextlib.contextmanager
def open_contents(path: str, root: str = "") -> Iterator[Source | Contents]:
    """Open what ``path`` is: a source of images, to be looked through, or, where it has none, all that can be said of it.

    ``root`` is put in front of the paths of a list. Raises DataError, which says what was found and expected.
    """
    target = Path(path)
    if not target.exists():
        raise DataError(f"{path}: no such file or folder (looked up from {Path.cwd()})")
    if not (target.is_file() or target.is_dir()):
        raise DataError(f"{path}: is neither a file nor a folder; expected {_EXPECTED}")
    if target.name == "data.mdb" or any((target / name).exists() for name in ("data.mdb", "CURRENT")):
        with contextlib.closing(open_any_database(path)) as database:
            yield DatabaseSource(database)
    elif is_hdf5(path):
        yield look_through_hdf5(path, [path], "HDF5 file")
    elif (axis_count := idx_axes(path)) is not None:
        yield _mnist_labels(path) if axis_count == 1 else _mnist_images(path)
    else:
        lines = _text_lines(path)
        if lines is None:
            raise DataError(f"{path}: {_describe(target)}; expected {_EXPECTED}")
        files = " ".join(lines).split()  # white space between them will do, as for HDF5Data layers
        if all(file.endswith((".h5", ".hdf5", ".hdf")) for file in files):
            yield look_through_hdf5(path, files, f"list of {len(files)} HDF5 files")
        else:
            yield ListSource(path, read_list(path), root)


def _mnist_images(path: str) -> Source:
    """An MNIST file of images, and the labels that lie beside it under MNIST's own name."""
    name = Path(path).name
    beside = Path(path).with_name(name.replace("images", "labels").replace("idx3", "idx1"))
    pixels = read_idx(path, 3)
    labels = read_idx(beside, 1) if idx_axes(beside) == 1 else None
    return ArraySource(path, pixels, labels if labels is not None and len(labels) == len(pixels) else None)


def _mnist_labels(path: str) -> Contents:
    labels = read_idx(path, 1)
    found = Contents(path, "MNIST file of labels", stored_bytes(path), len(labels), read_count=len(labels))
    found.labels = Counter(int(label) for label in labels)
    return found


def _text_lines(path: str) -> list[str] | None:
    """The lines of a text file that are not empty; None for a file that is none, or holds nothing."""
    try:
        with Path(path).open("rb") as stream:
            if b"\0" in stream.read(_BEGINNING_BYTES):
                return None
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return [line.strip() for line in text.split("\n") if line.strip()] or None


def _describe(path: Path) -> str:
    try:
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir())
            return (
                f"a folder that holds {', '.join(names[:5])}{', ...' if names[5:] else ''}"
                if names
                else "an empty folder"
            )
        with path.open("rb") as stream:
            return f"looks like {describe_content(stream.read(_BEGINNING_BYTES))}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
