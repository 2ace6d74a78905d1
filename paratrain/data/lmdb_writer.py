"""Writing LMDB databases: a whole one, or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from paratrain.data.lmdb import load_lmdb
from paratrain.errors import DataError

__all__ = ["LmdbWriter"]

_FIRST_MAP_BYTES = 64 << 20
_COMMIT_COUNT = 1000
_COMMIT_BYTES = 32 << 20


class LmdbWriter:
    """Write a new LMDB: ``with LmdbWriter(path) as database: database.put(key, value)``.

    Records go to ``<path>.partial-<process>``, which takes its name when the block ends well; it is removed when the
    block is left by an exception. The map grows as needed. Records are committed in batches, so the order of ``put``
    is free, and fastest when it is the order of the keys.

    Raises DataError if ``path`` exists and is not an empty folder, for a key that was put before or that LMDB cannot
    take (empty, or more than 511 bytes), and when the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self._lmdb = load_lmdb()
        self._partial = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        self._handle: Any = None

    def __enter__(self) -> LmdbWriter:
        self._check_target()
        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._partial, ignore_errors=True)  # of an earlier process of this number
            self._partial.mkdir()
            self._map_bytes = _FIRST_MAP_BYTES
            self._handle = self._lmdb.open(
                str(self._partial), map_size=self._map_bytes, lock=False, sync=False, metasync=False, meminit=False
            )
        except (OSError, self._lmdb.Error) as error:
            self._discard()
            raise DataError(f"{self.path}: cannot be written ({error})") from None
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record."""
        assert self._handle is not None, "records are put inside the with block"
        self._pending.append((key, value))
        self._pending_bytes += len(key) + len(value)
        if len(self._pending) >= _COMMIT_COUNT or self._pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _check_target(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink() and not any(self.path.iterdir()):
            return
        if self.path.exists() or self.path.is_symlink():
            raise DataError(f"{self.path}: exists already; remove it first, or choose another name")

    def _commit(self) -> None:
        """Write what is pending, in as large a map as that needs."""
        while self._pending:
            try:
                with self._handle.begin(write=True) as transaction:
                    for key, value in self._pending:
                        self._put(transaction, key, value)
            except self._lmdb.MapFullError:
                self._map_bytes *= 2
                self._handle.set_mapsize(self._map_bytes)
                continue
            except self._lmdb.Error as error:
                raise DataError(f"{self.path}: cannot be written ({error})") from None
            self.count += len(self._pending)
            self._pending.clear()
            self._pending_bytes = 0

    def _put(self, transaction: Any, key: bytes, value: bytes) -> None:
        try:
            added = transaction.put(key, value, overwrite=False)
        except self._lmdb.BadValsizeError:
            raise DataError(f"{self.path}: the key {key[:40]!r} has {len(key)} bytes; LMDB takes 1 to 511") from None
        if not added:
            raise DataError(f"{self.path}: the key {key!r} comes twice")

    def _finish(self) -> None:
        self._commit()
        try:
            self._handle.sync(True)
            self._handle.close()
            self._check_target()
            self._partial.rename(self.path)
            _sync_folder(self.path.absolute().parent)
        except (OSError, self._lmdb.Error) as error:
            raise DataError(f"{self.path}: cannot be written ({error})") from None

    def _discard(self) -> None:
        """Close and remove what has not taken its final name."""
        if self._handle is not None:
            self._handle.close()
        self._handle = None
        shutil.rmtree(self._partial, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
