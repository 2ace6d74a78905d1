"""Data: databases of records, their transformation, each rank's share of them, and batches prepared ahead of time."""

from paratrain.data.database import Database, open_database
from paratrain.data.datum import array_to_datum, datum_to_array
from paratrain.data.lmdb import LmdbReader
from paratrain.data.lmdb_writer import LmdbWriter
from paratrain.data.loader import DatumLoader
from paratrain.data.prefetch import Prefetcher
from paratrain.data.sharding import ShardedReader
from paratrain.data.transformer import Transformer

__all__ = [
    "Database",
    "DatumLoader",
    "LmdbReader",
    "LmdbWriter",
    "Prefetcher",
    "ShardedReader",
    "Transformer",
    "array_to_datum",
    "datum_to_array",
    "open_database",
]
