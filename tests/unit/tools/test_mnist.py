"""MNIST's own files become databases that equal those of Caffe's convert_mnist_data."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest

from paratrain.data import LevelDbReader, LmdbReader
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.mnist import idx_axes, read_digits, read_idx, write_database, write_digits
from paratrain.tools.work import Work
from tests.optional import need_leveldb
from tests.paths import DATA

IMAGES, LABELS = DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz"

# Of keys and values of the databases that Caffe's convert_mnist_data made, as `digest` below computes them.
CAFFES = {
    (0, 8000): "8fa63eea38502d94d933bf6e56546d691b6dfff613d3e0b5b36e58319acbf4e1",
    (8000, 10000): "4f8259a31987c7792b249a77eed695f20994266083db1dda9ebdb1ac025c1835",
}


def digest(reader):
    total = hashlib.sha256()
    for index in range(len(reader)):
        total.update(reader.key(index) + b"\0" + reader.get(index))
    return total.hexdigest()


@pytest.mark.parametrize("records", CAFFES)
@pytest.mark.parametrize(("backend", "kind"), [("lmdb", LmdbReader), ("leveldb", LevelDbReader)])
def test_databases_equal_those_that_caffe_made(tmp_path, records, backend, kind):
    if backend == "leveldb":
        need_leveldb()
    pixels, labels = read_digits(IMAGES, LABELS, *records)
    with Work(len(pixels), "digits") as work:
        write_digits(tmp_path / "db", pixels, labels, work, backend=backend)
    with kind(tmp_path / "db") as reader:
        assert len(reader) == records[1] - records[0]
        assert digest(reader) == CAFFES[records]


def write_idx(path, values, magic=None):
    header = struct.pack(f">{1 + values.ndim}I", magic or 0x800 + values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())
    return path


@pytest.fixture
def small(tmp_path):
    images = write_idx(tmp_path / "images", np.arange(5 * 2 * 3).reshape(5, 2, 3))
    return images, write_idx(tmp_path / "labels", np.array([3, 1, 4, 1, 255]))


def test_files_need_not_be_gzipped(small, tmp_path):
    assert write_database(*small, tmp_path / "db", 1) == 4
    with LmdbReader(tmp_path / "db") as reader:
        found = [Datum.FromString(reader.get(index)) for index in range(4)]
        assert [reader.key(index) for index in range(4)] == [b"%08d" % index for index in range(4)]
    assert [datum.label for datum in found] == [1, 4, 1, 255]
    assert [(datum.channels, datum.height, datum.width) for datum in found] == [(1, 2, 3)] * 4
    assert found[0].data == bytes(range(6, 12))


@pytest.mark.parametrize("records", [(0, 6), (5, 5), (4, 2), (7, None), (-1, 3)])
def test_records_that_are_not_there(small, tmp_path, records):
    with pytest.raises(DataError, match="records .* were asked for; it holds 0 to 5"):
        write_database(*small, tmp_path / "db", *records)
    assert not (tmp_path / "db").exists()


def test_files_that_are_something_else(small, tmp_path):
    images, labels = small
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("labels")
    with pytest.raises(DataError, match="starts with 2051; it starts with 2049; are images and labels swapped?"):
        read_digits(labels, images)
    with pytest.raises(DataError, match="not an MNIST file of labels, which starts with 2049; it is empty"):
        read_digits(images, tmp_path / "empty")
    with pytest.raises(DataError, match="text: is not an MNIST file of images"):
        read_digits(tmp_path / "text", labels)
    with pytest.raises(DataError, match="missing: cannot be read .No such file"):
        read_digits(tmp_path / "missing", labels)
    with pytest.raises(DataError, match="holds 5 images and .* 4 labels"):
        read_digits(images, write_idx(tmp_path / "four", np.zeros(4)))


def test_files_that_are_cut(small, tmp_path):
    images, _ = small
    content = images.read_bytes()
    (tmp_path / "cut").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"announces \(5, 2, 3\) values and holds 29; the file is cut or damaged"):
        read_idx(tmp_path / "cut", 3)
    (tmp_path / "header").write_bytes(content[:10])
    with pytest.raises(DataError, match="is not an MNIST file of images"):
        read_idx(tmp_path / "header", 3)
    packed = gzip.compress(content + os.urandom(2000))
    for name, damaged in (("half.gz", packed[:1000]), ("flipped.gz", packed[:500] + b"abcdefgh" + packed[508:])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}: cannot be unzipped .*cut or damaged"):
            read_idx(tmp_path / name, 3)


def test_files_are_recognised_by_their_beginning(small, tmp_path):
    (tmp_path / "text").write_text("some text")
    (tmp_path / "no.gz").write_bytes(b"\x1f\x8bnonsense")
    paths = [IMAGES, LABELS, *small, tmp_path / "text", tmp_path / "no.gz", tmp_path / "missing", tmp_path]
    assert [idx_axes(path) for path in paths] == [3, 1, 3, 1, None, None, None, None]
