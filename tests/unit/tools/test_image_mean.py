"""Mean images are those of Caffe's compute_image_mean, bit for bit."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from paratrain.data import LmdbWriter, array_to_datum
from paratrain.errors import DataError
from paratrain.tools.databases import open_any_database
from paratrain.tools.image_mean import channel_means, compute_mean, mean_blob
from paratrain.tools.work import Work
from tests.optional import need_leveldb, need_opencv
from tests.paths import DATA


def mean_of(path, **options):
    with contextlib.closing(open_any_database(path)) as database, Work(len(database), "images") as work:
        return compute_mean(database, work, **options)


def write(path, images):
    with LmdbWriter(path) as database:
        for index, image in enumerate(images):
            value = image if isinstance(image, bytes) else array_to_datum(image).SerializeToString()
            database.put(b"%08d" % index, value)
    return path


@pytest.mark.parametrize("name", ["images_raw_lmdb", "images_png_lmdb", "images_raw_leveldb"])
@pytest.mark.parametrize("thread_count", [1, 3, None])
def test_the_file_equals_caffes(name, thread_count):
    if "png" in name:
        need_opencv()
    if "leveldb" in name:
        need_leveldb()
    mean = mean_of(DATA / "images" / name, thread_count=thread_count)
    assert mean_blob(mean).SerializeToString() == (DATA / "images" / "images_mean.binaryproto").read_bytes()


def test_sums_are_single_precision_in_the_order_of_the_records(tmp_path):
    """What Caffe's loop over values does, for sums that single precision cannot hold exactly."""
    images = np.random.default_rng(0).normal(size=(40, 2, 3, 4)).astype(np.float32) * 1000
    mean = mean_of(write(tmp_path / "db", images))
    channel_sums = [np.float32(0)] * 2
    for place in np.ndindex(2, 3, 4):
        total = np.float32(0)
        for image in images:
            total = np.float32(total + image[place])
        value = np.float32(total / np.float32(40))
        assert mean[place] == value
        channel_sums[place[0]] = np.float32(channel_sums[place[0]] + value)
    assert channel_means(mean) == [float(np.float32(total / np.float32(12))) for total in channel_sums]
    assert not np.array_equal(mean, images.mean(axis=0, dtype=np.float64).astype(np.float32))


def test_images_of_different_shapes_have_no_mean(tmp_path):
    path = write(tmp_path / "db", [np.zeros((1, 4, 6), np.uint8), np.zeros((1, 6, 4), np.uint8)])
    with pytest.raises(
        DataError, match=r"record 1 \(key '00000001'\): its image has the shape \(1, 6, 4\).*\(1, 4, 6\)"
    ):
        mean_of(path)


@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_record_is_named(tmp_path, place):
    records = [np.zeros((1, 4, 6), np.uint8)] * 2
    records[place] = b"\x08\x01\x10"
    with pytest.raises(DataError, match=f"record {place} .key '0000000{place}'.: .*not a Datum"):
        mean_of(write(tmp_path / "db", records))
