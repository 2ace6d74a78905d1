"""Writing LevelDB databases: a whole one, or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from paratrain.data.database_writer import DatabaseWriter
from paratrain.data.leveldb import load_plyvel
from paratrain.data.partial import write_error
from paratrain.errors import DataError

__all__ = ["LevelDbWriter"]

_BLOCK_BYTES = 64 << 10  # as Caffe's
_BUFFER_BYTES = 64 << 20
_OPEN_FILES = 100


class LevelDbWriter(DatabaseWriter):
    """Write a new LevelDB: ``with LevelDbWriter(path) as database: database.put(key, value)``.

    See :class:`~paratrain.data.database_writer.DatabaseWriter`. Raises MissingDependencyError without plyvel.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._plyvel = load_plyvel()
        self._handle: Any = None
        self._last_key: bytes | None = None

    def _open(self, folder: Path) -> None:
        self._folder = folder
        self._open_handle(create=True)

    def _open_handle(self, *, create: bool) -> None:
        try:
            self._handle = self._plyvel.DB(
                str(self._folder),
                create_if_missing=create,
                error_if_exists=create,
                write_buffer_size=_BUFFER_BYTES,
                block_size=_BLOCK_BYTES,
                max_open_files=_OPEN_FILES,
            )
        except (self._plyvel.Error, OSError) as error:
            raise write_error(self.path, error) from None

    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        try:
            with self._handle.write_batch(transaction=True) as batch:
                new: set[bytes] = set()
                for key, value in records:
                    is_last = self._last_key is None or key > self._last_key
                    if not is_last and (key in new or self._handle.get(key) is not None):
                        raise DataError(f"{self.path}: the key {key!r} comes twice")
                    self._last_key = key if is_last else self._last_key
                    new.add(key)
                    batch.put(key, value)
        except (self._plyvel.Error, OSError) as error:
            raise write_error(self.path, error) from None

    def _complete(self) -> None:
        """Opening it again turns the journal into tables, which spares every reader from doing so."""
        self._close()
        self._open_handle(create=False)
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
        self._handle = None
