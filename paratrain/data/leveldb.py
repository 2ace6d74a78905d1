"""Reading LevelDB databases, and the only door to plyvel (plyvel-next from Python 3.13 on)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from paratrain.data.leveldb_files import make_view
from paratrain.data.paths import no_such_database
from paratrain.errors import DataError, MissingDependencyError

__all__ = ["LevelDbReader", "load_plyvel"]

# Of the 1,024 files that a process may usually have open.
_OPEN_FILES = 200


def load_plyvel() -> ModuleType:
    """Return the module that reads LevelDB. Raises MissingDependencyError where neither plyvel nor plyvel-next is there."""
    try:
        import plyvel
    except ImportError:
        try:
            import plyvel_next as plyvel
        except ImportError:
            raise MissingDependencyError("plyvel", "reading a LevelDB", "leveldb") from None
    module: ModuleType = plyvel
    return module


class LevelDbReader:
    """The records of a LevelDB, numbered from 0 in the order of their keys.

    The database itself is never written to or locked: what is opened is a private view in the folder for temporary
    files (see :mod:`paratrain.data.leveldb_files`), so that any number of processes may read it, from read-only file
    systems too. A LevelDB does not know how many records it has: opening it reads all of it once, to list the keys.

    ``path`` is the folder that holds CURRENT. Any number of threads may read at once. Raises DataError when it is
    missing, empty, no LevelDB, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        database = _database_folder(self.path)
        self._plyvel = load_plyvel()
        try:
            view = tempfile.mkdtemp(prefix="paratrain-leveldb-")
        except OSError as error:
            raise DataError(f"{self.path}: no folder for temporary files ({error}); set TMPDIR") from None
        self._close: weakref.finalize[..., LevelDbReader] = weakref.finalize(self, _close_reader, None, Path(view))
        try:
            self._open(database, Path(view))
            with self._reading("the keys"):
                self._list_keys()
            if len(self) == 0:
                raise DataError(f"{self.path}: the database is empty; expected a LevelDB with at least one record")
        except BaseException:
            self._close()
            raise

    def __len__(self) -> int:
        return len(self._key_ends) - 1

    def key(self, index: int) -> bytes:
        """Return the key of record ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no record {index}; there are {len(self)}")
        return bytes(self._keys[self._key_ends[index] : self._key_ends[index + 1]])

    def get(self, index: int) -> bytes:
        """Return the value of record ``index``."""
        key = self.key(index)
        with self._reading(f"record {index}"):
            value: bytes | None = self._handle.get(key, verify_checksums=True)
        assert value is not None, "a listed key is there"
        return value

    def get_many(self, indices: Sequence[int]) -> list[bytes]:
        """Return the values of records."""
        return [self.get(index) for index in indices]

    def close(self) -> None:
        """Close the database and remove the private view; records that were read stay valid."""
        self._close()

    def __enter__(self) -> LevelDbReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, database: Path, view: Path) -> None:
        try:
            make_view(database, view)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be prepared for reading in {view} ({error})") from None
        try:
            handle = self._plyvel.DB(
                str(view), create_if_missing=False, paranoid_checks=True, max_open_files=_OPEN_FILES
            )
        except self._plyvel.Error as error:
            raise DataError(f"{self.path}: cannot be opened as a LevelDB ({_text(error)})") from None
        self._handle: Any = handle
        self._close.detach()
        self._close = weakref.finalize(self, _close_reader, handle, view)

    def _list_keys(self) -> None:
        self._keys, self._key_ends = bytearray(), array("Q", [0])
        with self._handle.iterator(include_value=False, verify_checksums=True, fill_cache=False) as keys:
            for key in keys:
                self._keys += key
                self._key_ends.append(len(self._keys))

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._plyvel.Error, RuntimeError) as error:
            raise DataError(
                f"{self.path}: {what} cannot be read ({_text(error)}); the database is damaged, or closed"
            ) from None


def _text(error: Exception) -> str:
    """plyvel's messages are bytes where they come from LevelDB."""
    (first, *_) = error.args or ("",)
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def _close_reader(handle: Any, view: Path) -> None:
    if handle is not None:
        handle.close()
    shutil.rmtree(view, ignore_errors=True)


def _database_folder(path: str) -> Path:
    folder = Path(path)
    if not folder.exists():
        raise no_such_database(path)
    if not (folder / "CURRENT").is_file():
        raise DataError(f"{path}: not a LevelDB: {folder.absolute()} holds no CURRENT")
    return folder.resolve()
