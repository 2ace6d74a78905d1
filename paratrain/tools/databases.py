"""Databases by the names that Caffe's tools give to their kinds: lmdb and leveldb."""

from __future__ import annotations

import os
from pathlib import Path

from paratrain.data import Database, LevelDbWriter, LmdbWriter, open_database
from paratrain.data.database_writer import DatabaseWriter
from paratrain.errors import DataError
from paratrain.proto.caffe_pb2 import DataParameter

__all__ = ["BACKENDS", "create_database", "open_any_database", "stored_bytes"]

BACKENDS = ("lmdb", "leveldb")

Path_ = str | os.PathLike[str]


def create_database(path: Path_, backend: str) -> DatabaseWriter:
    """Return the writer of a new database, to be entered. Raises DataError for a backend that nobody knows."""
    if backend == "lmdb":
        return LmdbWriter(path)
    if backend == "leveldb":
        return LevelDbWriter(path)
    raise DataError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}")


def open_any_database(path: Path_, backend: str | None = None) -> Database:
    """Open a database for reading; where ``backend`` is None it is what the folder looks like. Raises DataError."""
    source = os.fspath(path)
    if backend is None:
        backend = "leveldb" if (Path(source) / "CURRENT").is_file() else "lmdb"
    return open_database(source, DataParameter.LEVELDB if backend == "leveldb" else DataParameter.LMDB)


def stored_bytes(path: Path_) -> int:
    """How many bytes a file, or all files of a folder, take."""
    root = Path(path)
    return sum(file.stat().st_size for file in (root.rglob("*") if root.is_dir() else [root]) if file.is_file())
