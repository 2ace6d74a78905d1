"""CIFAR's binary files, made small here, become databases of Caffe's keys and values."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest

from paratrain.data import LmdbReader
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.cifar import CIFAR10, CIFAR100, count_records, find_cifar, write_databases
from paratrain.tools.work import Work

NAMES_10 = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def write_file(path, labels, seed):
    """One record for each row of labels: these, and 3,072 values. Returns the values."""
    labels = np.array(labels, np.uint8).reshape(len(labels), -1)
    values = np.random.default_rng(seed).integers(0, 256, (len(labels), 3 * 32 * 32), np.uint8)
    path.write_bytes(np.hstack([labels, values]).tobytes())
    return values


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    values = [write_file(folder / name, [[i], [9 - i], [3]], i) for i, name in enumerate(NAMES_10)]
    return folder, values


def convert(folder, output, **options):
    with Work(count_records(folder), "images") as work:
        return write_databases(folder, output, work, **options)


def datums(path):
    with LmdbReader(path) as reader:
        return [(reader.key(index), Datum.FromString(reader.get(index))) for index in range(len(reader))]


def test_cifar_10(cifar10, tmp_path, caplog):
    folder, values = cifar10
    with caplog.at_level(logging.INFO):
        written = convert(folder, tmp_path / "out")
    train, test = tmp_path / "out/cifar10_train_lmdb", tmp_path / "out/cifar10_test_lmdb"
    assert written == {train: 15, test: 3}
    expected = [
        (b"%05d" % (3 * i + j), Datum(channels=3, height=32, width=32, label=label, data=values[i][j].tobytes()))
        for i in range(5)
        for j, label in enumerate((i, 9 - i, 3))
    ]
    assert datums(train) == expected
    assert [(key, datum.label) for key, datum in datums(test)] == [(b"00000", 5), (b"00001", 4), (b"00002", 3)]
    assert sorted(os.listdir(tmp_path / "out")) == ["cifar10_test_lmdb", "cifar10_train_lmdb"]
    assert f"{folder}/data_batch_1.bin holds 3 images; that of cifar10 has 10000" in caplog.text


@pytest.mark.parametrize("coarse", [False, True])
def test_cifar_100(tmp_path, coarse):
    write_file(tmp_path / "train.bin", [[19, 99], [3, 42]], 1)
    write_file(tmp_path / "test.bin", [[7, 50]], 2)
    written = convert(tmp_path, tmp_path, coarse=coarse)
    assert list(written.values()) == [2, 1]
    labels = [datum.label for path in written for _, datum in datums(path)]
    assert labels == ([19, 3, 7] if coarse else [99, 42, 50])
    assert [path.name for path in written] == ["cifar100_train_lmdb", "cifar100_test_lmdb"]


def test_which_set_it_is(cifar10, tmp_path):
    assert find_cifar(cifar10[0]) is CIFAR10
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).touch()
    assert find_cifar(tmp_path) is CIFAR100


def test_nothing_takes_its_name_where_a_file_is_damaged(cifar10, tmp_path):
    folder, _ = cifar10
    content = (folder / "test_batch.bin").read_bytes()
    (folder / "test_batch.bin").write_bytes(content[:-1])
    with pytest.raises(DataError, match="test_batch.bin: has 9,218 bytes; expected records of 3,073 bytes"):
        convert(folder, tmp_path / "out")
    (folder / "test_batch.bin").write_bytes(content[:3073] + b"\x0a" + content[3074:])
    with pytest.raises(DataError, match="test_batch.bin: record 1 has the label 10; expected 0 to 9"):
        convert(folder, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_folders_that_hold_something_else(cifar10, tmp_path):
    folder, _ = cifar10
    with pytest.raises(DataError, match="CIFAR-10 has no coarse labels"):
        convert(folder, tmp_path / "out", coarse=True)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="data_batch_3.bin of cifar10 is missing"):
        find_cifar(folder)
    with pytest.raises(DataError, match="no such folder"):
        find_cifar(tmp_path / "missing")
    with pytest.raises(DataError, match="holds neither data_batch_1.bin"):
        find_cifar(tmp_path)
    (tmp_path / "data_batch_1").touch()
    with pytest.raises(DataError, match="get the binary version"):
        find_cifar(tmp_path)
