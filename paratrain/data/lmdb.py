"""Reading LMDB databases, and the only door to the ``lmdb`` library.

Databases are taken as they are: without locks, so that read-only and network file systems serve as well,
and with the system's readahead, which was measured to read cold records of 150 kB eight times faster than without.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from paratrain.data.paths import no_such_database
from paratrain.errors import DataError

__all__ = ["LmdbReader", "load_lmdb"]

_LISTED_AT_ONCE = 8192


def load_lmdb() -> ModuleType:
    """Return the ``lmdb`` module, which nothing else needs: it is imported when the first database is opened or written."""
    import lmdb

    module: ModuleType = lmdb
    return module


class _Environment:
    """One opened database file. LMDB allows one per file and process: readers of the same file share it."""

    opened: dict[str, _Environment] = {}  # noqa: RUF012  (shared on purpose, under the lock)
    lock = threading.RLock()  # a reader may be collected, and so closed, while another is being opened

    def __init__(self, path: Path, handle: Any) -> None:
        self.path = str(path)
        self.handle = handle
        self.reader_count = 0

    @classmethod
    def acquire(cls, path: Path, open_handle: Callable[[], Any]) -> _Environment:
        with cls.lock:
            environment = cls.opened.get(str(path))
            if environment is None:
                environment = cls.opened[str(path)] = cls(path, open_handle())
            environment.reader_count += 1
            return environment

    def release(self) -> None:
        with self.lock:
            self.reader_count -= 1
            if self.reader_count == 0:
                del self.opened[self.path]
                self.handle.close()


class LmdbReader:
    """The records of an LMDB, numbered from 0 in the order of their keys.

    Any record is sought directly. Caffe's writers number their keys (``00000012`` or ``00000012_cat.jpg``): where the
    first and the last key bear this out, the key of record i is sought by its number. Otherwise keys are listed, once,
    as far as they have been asked for. Opening takes the same short time whatever the number of records.

    ``path`` is a folder that holds ``data.mdb``, or such a file by itself. Any number of threads may read at once, each in
    a transaction of its own. Raises DataError when it is missing, empty, not an LMDB, or cut off.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        file = _database_file(self.path)
        self._lmdb = load_lmdb()
        environment = _Environment.acquire(file, lambda: self._open(file))
        try:
            self._count: int = environment.handle.stat()["entries"]
            if self._count == 0:
                raise DataError(f"{self.path}: the database is empty; expected an LMDB with at least one record")
            first_view = _View(environment.handle)
        except BaseException:
            environment.release()
            raise
        self._views = [first_view]  # those that no thread uses now
        self._all_views = [first_view]
        self._handle = environment.handle
        self._close = weakref.finalize(self, _close_reader, environment, self._all_views)
        with self._reading("the first and last record"):
            self._number_width = self._find_number_width(first_view.cursor)
            self._keys_are_numbers = self._number_width == len(first_view.cursor.key())
            self._walk: Iterator[bytes] = first_view.transaction.cursor().iternext(keys=True, values=False)
        self._listing = threading.Lock()
        self._keys = bytearray()
        self._key_ends = array("Q", [0])

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> bytes:
        """Return the key of record ``index``."""
        with self._reading(f"the key of record {index}"), self._view() as view:
            self._seek(view.cursor, index)
            key: bytes = view.cursor.key()
            return key

    def get(self, index: int) -> bytes:
        """Return the value of record ``index``."""
        try:
            with self._view() as view:
                return self._value(view, index)
        except self._lmdb.Error as error:
            raise self._damaged(f"record {index}", error) from None

    def get_many(self, indices: Sequence[int]) -> list[bytes]:
        """Return the values of records; those that follow each other are walked through, three times as fast as sought."""
        count = len(indices)
        with self._reading(f"one of the records {min(indices)} to {max(indices)}"), self._view() as view:
            if count > 1 and list(indices) == list(range(indices[0], indices[0] + count)):
                self._seek(view.cursor, indices[0])
                values: list[bytes] = list(islice(view.cursor.iternext(keys=False, values=True), count))
                last = view.cursor.key()
                self._seek(view.cursor, indices[-1])
                if view.cursor.key() == last:  # else a number is missing in between
                    return values
            return [self._value(view, index) for index in indices]

    def close(self) -> None:
        """Close the database; records that were read stay valid."""
        self._close()

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _view(self) -> Iterator[_View]:
        """Lend out a transaction that no other thread uses."""
        try:
            view = self._views.pop()
        except IndexError:
            view = _View(self._handle)
            self._all_views.append(view)
        try:
            yield view
        finally:
            self._views.append(view)

    def _value(self, view: _View, index: int) -> bytes:
        if self._keys_are_numbers and index >= 0:  # a call less than seeking
            known: bytes | None = view.get(b"%0*d" % (self._number_width, index))
            if known is not None:
                return known
        self._seek(view.cursor, index)
        value: bytes = view.cursor.value()
        return value

    def _seek(self, cursor: Any, index: int) -> None:
        """Put the cursor on record ``index``."""
        if not 0 <= index < self._count:
            raise IndexError(f"{self.path}: no record {index}; there are {self._count}")
        width = self._number_width
        if width:
            number = b"%0*d" % (width, index)
            if cursor.set_range(number) and _leading_digits(cursor.key(), width) == number:
                return
            # A number is missing in the middle: only a list tells the order.
            self._keys_are_numbers, self._number_width = False, 0
        with self._listing:
            self._list_keys(index)
            key = bytes(self._keys[self._key_ends[index] : self._key_ends[index + 1]])
        if not cursor.set_key(key):
            raise DataError(
                f"{self.path}: record {index} is not found under its own key {key!r}; the database is damaged"
            )

    def _find_number_width(self, cursor: Any) -> int:
        """The number of digits that start every key, going by the first and the last; 0 where keys are not numbered.
        The cursor stays on the last.
        """
        cursor.first()
        first: bytes = cursor.key()
        cursor.last()
        last: bytes = cursor.key()
        width = len(first) - len(first.lstrip(b"0"))
        numbered = (
            width > 0
            and _leading_digits(first, width) == b"0" * width
            and _leading_digits(last, width) == b"%0*d" % (width, self._count - 1)
        )
        return width if numbered else 0

    def _list_keys(self, index: int) -> None:
        """List keys until that of record ``index`` is known."""
        while len(self._key_ends) <= index + 1:
            keys = list(islice(self._walk, _LISTED_AT_ONCE))
            if not keys:
                found = len(self._key_ends) - 1
                raise DataError(f"{self.path}: damaged: it should have {self._count} records, and {found} are found")
            end = self._key_ends[-1]
            for key in keys:
                end += len(key)
                self._key_ends.append(end)
            self._keys += b"".join(keys)

    def _open(self, file: Path) -> Any:
        """Open the file, and see that all of it is there: LMDB maps it, and a missing page would kill the process."""
        try:
            handle = self._lmdb.open(
                str(file), subdir=False, readonly=True, create=False, lock=False, readahead=True, max_spare_txns=4
            )
        except self._lmdb.InvalidError:
            raise DataError(f"{self.path}: {file} is not an LMDB file, or its start is damaged") from None
        except self._lmdb.VersionMismatchError:
            raise DataError(f"{self.path}: written by a version of LMDB whose files cannot be read here") from None
        except self._lmdb.Error as error:
            raise DataError(f"{self.path}: cannot be opened as an LMDB ({error})") from None
        wanted_bytes = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
        found_bytes = file.stat().st_size
        if found_bytes < wanted_bytes:
            handle.close()
            raise DataError(
                f"{self.path}: cut off: {file.name} should have {wanted_bytes:,} bytes and has {found_bytes:,}. "
                "Copy or write it again"
            )
        return handle

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._lmdb.Error as error:
            raise self._damaged(what, error) from None

    def _damaged(self, what: str, error: Exception) -> DataError:
        return DataError(f"{self.path}: {what} cannot be read ({error}); the database is damaged, or closed")


def _leading_digits(key: bytes, width: int) -> bytes:
    """The first ``width`` bytes of the key where they are followed by the key's end or by no digit; else nothing."""
    return b"" if key[width : width + 1].isdigit() else key[:width]


class _View:
    """A transaction for reading, for one thread at a time."""

    def __init__(self, handle: Any) -> None:
        self.transaction = handle.begin()
        self.cursor = self.transaction.cursor()
        self.get = self.transaction.get


def _close_reader(environment: _Environment, views: list[_View]) -> None:
    for view in views:
        view.transaction.abort()
    environment.release()


def _database_file(path: str) -> Path:
    """The real path of ``data.mdb``, or of the file that ``path`` names. Raises DataError for what is not there."""
    given = Path(path)
    if not given.exists():
        raise no_such_database(path)
    if given.is_dir():
        file = given / "data.mdb"
        if not file.is_file():
            hint = "; it looks like a LevelDB: write 'backend: LEVELDB'" if (given / "CURRENT").exists() else ""
            raise DataError(f"{path}: not an LMDB: the folder {given.absolute()} holds no data.mdb{hint}")
    else:
        file = given
    if file.stat().st_size == 0:
        raise DataError(f"{path}: not an LMDB: {file} is an empty file")
    if not os.access(file, os.R_OK):
        raise DataError(f"{path}: {file} may not be read by this user")
    return file.resolve()
