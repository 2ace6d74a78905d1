"""What the writers of LMDB and LevelDB share: a whole database, or nothing; records committed in batches."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from paratrain.data.partial import PartialFolder

__all__ = ["DatabaseWriter"]

_COMMIT_COUNT = 1000
_COMMIT_BYTES = 32 << 20

Writer = TypeVar("Writer", bound="DatabaseWriter")


class DatabaseWriter(ABC):
    """Write a new database: ``with LmdbWriter(path) as database: database.put(key, value)``.

    Records go to ``<path>.partial-<process>``, which takes its name when the block ends well; it is removed when the
    block is left by an exception. Records are committed in batches, so the order of ``put`` is free, and fastest when it
    is the order of the keys. ``count`` is how many records have been put.

    Raises DataError if ``path`` exists and is not an empty folder, for a key that was put before or cannot be one, and
    when the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self._partial = PartialFolder(path)
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        self._is_open = False

    def __enter__(self: Writer) -> Writer:
        folder = self._partial.__enter__()
        try:
            self._open(folder)
            self._is_open = True
        except BaseException as error:
            self._partial.__exit__(type(error), error, None)
            raise
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record."""
        assert self._is_open, "records are put inside the with block"
        self._pending.append((key, value))
        self._pending_bytes += len(key) + len(value)
        self.count += 1
        if len(self._pending) >= _COMMIT_COUNT or self._pending_bytes >= _COMMIT_BYTES:
            self._commit_pending()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            if kind is None:
                self._commit_pending()
                self._complete()
        except BaseException as failure:
            kind, error = type(failure), failure
            raise
        finally:
            try:
                self._close()
            except BaseException as failure:  # such as Ctrl-C
                kind, error = type(failure), failure
                raise
            finally:
                self._partial.__exit__(kind, error, traceback)

    def _commit_pending(self) -> None:
        if self._pending:
            self._commit(self._pending)
        self._pending.clear()
        self._pending_bytes = 0

    @abstractmethod
    def _open(self, folder: Path) -> None:
        """Make an empty database in the empty ``folder``. Raises DataError."""

    @abstractmethod
    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        """Write records, each a key and a value. Raises DataError."""

    @abstractmethod
    def _complete(self) -> None:
        """Bring everything to its files. Raises DataError."""

    @abstractmethod
    def _close(self) -> None:
        """Close the database, however far it came; a second call does nothing."""
