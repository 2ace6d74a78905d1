"""What every database offers to those who read it, and the choice between their kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from paratrain.data.leveldb import LevelDbReader
from paratrain.data.lmdb import LmdbReader
from paratrain.errors import DataError
from paratrain.proto.caffe_pb2 import DataParameter

__all__ = ["Database", "describe_record", "open_database"]


class Database(Protocol):
    """Records in a fixed order, numbered from 0, each a key and a value; for any number of threads at once."""

    path: str

    def __len__(self) -> int: ...
    def key(self, index: int) -> bytes:
        """Return the key of record ``index``."""

    def get(self, index: int) -> bytes:
        """Return the value of record ``index``."""

    def get_many(self, indices: Sequence[int]) -> list[bytes]:
        """Return the values of some records, at least one."""

    def close(self) -> None:
        """Free the file; a second call does nothing."""


def open_database(source: str, backend: DataParameter.DB) -> Database:
    """Open the database that ``data_param`` names by ``source`` and ``backend`` (LMDB or LEVELDB, Caffe's default).

    Raises DataError if it is missing, empty, damaged or of another kind.
    """
    if not source:
        raise DataError("no database is named: write 'source: \"path\"' in data_param")
    if backend == DataParameter.LMDB:
        return LmdbReader(source)
    if (Path(source) / "data.mdb").is_file():
        raise DataError(
            f"{source}: this is an LMDB, and the backend is LEVELDB (as it is where none is given): write 'backend: LMDB'"
        )
    return LevelDbReader(source)


def describe_record(database: Database, index: int) -> str:
    """Name one record in a message: ``images_lmdb: record 12 (key '00000012')``."""
    return f"{database.path}: record {index} (key '{database.key(index).decode('utf-8', 'backslashreplace')}')"
