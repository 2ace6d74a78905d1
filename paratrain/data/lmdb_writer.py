"""Writing LMDB databases: a whole one, or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from paratrain.data.database_writer import DatabaseWriter
from paratrain.data.lmdb import load_lmdb
from paratrain.data.partial import write_error
from paratrain.errors import DataError

__all__ = ["LmdbWriter"]

_FIRST_MAP_BYTES = 64 << 20


class LmdbWriter(DatabaseWriter):
    """Write a new LMDB: ``with LmdbWriter(path) as database: database.put(key, value)``.

    See :class:`~paratrain.data.database_writer.DatabaseWriter`. Keys have 1 to 511 bytes. The map grows as needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._lmdb = load_lmdb()
        self._handle: Any = None

    def _open(self, folder: Path) -> None:
        self._map_bytes = _FIRST_MAP_BYTES
        try:
            self._handle = self._lmdb.open(
                str(folder), map_size=self._map_bytes, lock=False, sync=False, metasync=False, meminit=False
            )
        except self._lmdb.Error as error:
            raise write_error(self.path, error) from None

    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        """Write the records, in as large a map as that needs."""
        while True:
            try:
                with self._handle.begin(write=True) as transaction:
                    for key, value in records:
                        self._put(transaction, key, value)
                return
            except self._lmdb.MapFullError:
                self._map_bytes *= 2
                self._handle.set_mapsize(self._map_bytes)
            except self._lmdb.Error as error:
                raise write_error(self.path, error) from None

    def _put(self, transaction: Any, key: bytes, value: bytes) -> None:
        try:
            added = transaction.put(key, value, overwrite=False)
        except self._lmdb.BadValsizeError:
            raise DataError(f"{self.path}: the key {key[:40]!r} has {len(key)} bytes; LMDB takes 1 to 511") from None
        if not added:
            raise DataError(f"{self.path}: the key {key!r} comes twice")

    def _complete(self) -> None:
        try:
            self._handle.sync(True)
        except self._lmdb.Error as error:
            raise write_error(self.path, error) from None

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
        self._handle = None
