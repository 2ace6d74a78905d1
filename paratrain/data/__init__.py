"""Data: databases of records, their transformation, each rank's share of them, and batches prepared ahead of time."""

from paratrain.data.database import Database, open_database
from paratrain.data.datum import array_to_datum, datum_to_array
from paratrain.data.leveldb import LevelDbReader
from paratrain.data.leveldb_writer import LevelDbWriter
from paratrain.data.lmdb import LmdbReader
from paratrain.data.lmdb_writer import LmdbWriter
from paratrain.data.loader import BatchLoader, RecordLoader
from paratrain.data.orders import Sequential, Shuffled
from paratrain.data.prefetch import Prefetcher
from paratrain.data.sharding import Samples, ShardedReader
from paratrain.data.source import DatumSource, ImageListSource
from paratrain.data.transformer import Transformer

__all__ = [
    "BatchLoader",
    "Database",
    "DatumSource",
    "ImageListSource",
    "LevelDbReader",
    "LevelDbWriter",
    "LmdbReader",
    "LmdbWriter",
    "Prefetcher",
    "RecordLoader",
    "Samples",
    "Sequential",
    "ShardedReader",
    "Shuffled",
    "Transformer",
    "array_to_datum",
    "datum_to_array",
    "open_database",
]
