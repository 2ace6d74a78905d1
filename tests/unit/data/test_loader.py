from __future__ import annotations

import numpy as np
import pytest

from paratrain.data import (
    DatumSource,
    LmdbWriter,
    RecordLoader,
    ShardedReader,
    Transformer,
    array_to_datum,
    open_database,
)
from paratrain.errors import DataError
from paratrain.proto import TRAIN, TransformationParameter
from paratrain.proto.caffe_pb2 import DataParameter
from tests.paths import DATA

RNG = np.random.default_rng(1)


def database_of(path, values):
    with LmdbWriter(path) as database:
        for i, value in enumerate(values):
            database.put(b"%08d" % i, value)
    return str(path)


def loader_of(path, rank=0, size=1, batch_size=2, **fields):
    database = open_database(path, DataParameter.LMDB)
    transformer = Transformer(TransformationParameter(**fields), TRAIN, 7, "data")
    reader = ShardedReader(len(database), rank, size)
    return RecordLoader(DatumSource(database, transformer.color), reader, transformer, batch_size)


def batches(loader, batch_size, count):
    data, labels = np.empty((batch_size, *loader.image_shape), np.float32), np.empty(batch_size, np.float32)
    for batch in range(count):
        loader.fill(batch, data, labels)
        yield data.copy(), labels.copy()


def test_batches_hold_the_records_in_order_and_wrap_around(tmp_path):
    images = RNG.integers(0, 256, (7, 2, 3, 4), np.uint8)
    path = database_of(tmp_path / "db", [array_to_datum(x, 10 + i).SerializeToString() for i, x in enumerate(images)])
    loader = loader_of(path)
    assert loader.image_shape == (2, 3, 4)
    seen = list(batches(loader, 3, 5))
    order = np.arange(15) % 7
    assert np.array_equal(np.concatenate([data for data, _ in seen]), images[order])
    assert np.array_equal(np.concatenate([labels for _, labels in seen]), 10 + order)
    loader.close()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_ranks_together_see_what_one_rank_sees_augmentation_included(tmp_path, size):
    images = RNG.integers(0, 256, (11, 1, 9, 9), np.uint8)
    path = database_of(tmp_path / "db", [array_to_datum(x, i).SerializeToString() for i, x in enumerate(images)])
    fields = {"crop_size": 6, "mirror": True, "scale": 0.5}
    one = list(batches(loader_of(path, **fields), 2 * size, 7))
    ranks = [list(batches(loader_of(path, rank, size, **fields), 2, 7)) for rank in range(size)]
    for batch in range(7):
        together = np.stack([ranks[rank][batch][0] for rank in range(size)], axis=1)
        assert np.array_equal(together.reshape(one[batch][0].shape), one[batch][0])


def good(label=0, shape=(1, 4, 4)):
    return array_to_datum(np.zeros(shape, np.uint8), label).SerializeToString()


@pytest.mark.parametrize(
    ("bad", "fields", "message"),
    [
        (b"not a datum", {}, r"db: record 2 \(key '00000002'\): 11 bytes that are not a Datum"),
        (good()[:-10], {}, r"db: record 2 \(key '00000002'\): "),
        (good(shape=(1, 4, 5)), {}, r"record 2 .*the shape \(1, 4, 5\) .* first record, \(1, 4, 4\); all images"),
        (good(shape=(3, 4, 4)), {"crop_size": 3}, r"record 2 .*the shape \(3, 3, 3\) .* first record, \(1, 3, 3\)"),
        (good(shape=(1, 2, 4)), {"crop_size": 3}, r"record 2 .*the image is 2 x 4 .*smaller than crop_size 3"),
    ],
)
def test_a_bad_record_is_named_by_database_number_and_key(tmp_path, bad, fields, message):
    loader = loader_of(database_of(tmp_path / "db", [good(), good(), bad, good()]), **fields)
    read = batches(loader, 2, 2)
    next(read)
    with pytest.raises(DataError, match=message):
        next(read)


def test_a_bad_first_record_is_found_at_once(tmp_path):
    path = database_of(tmp_path / "db", [b"not a datum", good()])
    with pytest.raises(DataError, match=r"record 0 \(key '00000000'\): 11 bytes"):
        loader_of(path)


def test_images_of_several_sizes_are_cropped_to_one(tmp_path):
    shapes = [(1, 4, 4), (1, 5, 9), (1, 3, 3)]
    loader = loader_of(database_of(tmp_path / "db", [good(i, shape) for i, shape in enumerate(shapes)]), crop_size=3)
    ((data, labels),) = batches(loader, 3, 1)
    assert data.shape == (3, 1, 3, 3)
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("source", "backend", "message"),
    [
        ("", DataParameter.LMDB, "no database is named"),
        ("images_raw_lmdb", DataParameter.LEVELDB, "this is an LMDB.* write 'backend: LMDB'"),
        ("images_row_leveldb", DataParameter.LEVELDB, "no such database.*images_raw_leveldb"),
        ("images", DataParameter.LEVELDB, "not a LevelDB: .*holds no CURRENT"),
        ("images_raw_leveldb", DataParameter.LMDB, "looks like a LevelDB"),
        ("images_row_lmdb", DataParameter.LMDB, "no such database"),
    ],
)
def test_sources_that_cannot_be_opened(monkeypatch, source, backend, message):
    monkeypatch.chdir(DATA / "images")
    with pytest.raises(DataError, match=message):
        open_database(source, backend)
