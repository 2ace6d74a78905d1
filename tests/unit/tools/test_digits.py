from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from sklearn import datasets

from paratrain.proto import Datum
from paratrain.tools import digits


def records(path: Path) -> list[tuple[bytes, Datum]]:
    with lmdb.open(str(path), readonly=True, lock=False) as database, database.begin() as transaction:
        return [(bytes(key), Datum.FromString(bytes(value))) for key, value in transaction.cursor()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    assert digits.write_digits(folder) == (1500, 297)
    return folder


def test_enlarge_by_hand() -> None:
    image = np.zeros((1, 8, 8))
    image[0, 0, 7] = 16
    image[0, 4, 2] = 8
    large = digits.enlarge(image)
    expected = np.zeros((28, 28), np.uint8)
    expected[2:5, 23:26] = 255
    expected[14:17, 8:11] = 128
    np.testing.assert_array_equal(large[0], expected)


def test_records_are_the_digits(folder: Path) -> None:
    source = datasets.load_digits()
    found = [*records(folder / "digits_train_lmdb"), *records(folder / "digits_test_lmdb")]
    for _, datum in found:
        assert (datum.channels, datum.height, datum.width, datum.encoded) == (1, 28, 28, False)
        assert not datum.float_data
    # Back to 8 x 8 and 0 to 16: every digit is there exactly once, under its own label.
    small = [np.frombuffer(datum.data, np.uint8).reshape(28, 28)[3:26:3, 3:26:3] for _, datum in found]
    back = {
        (tuple(np.rint(image.ravel() / 255 * 16).astype(int)), datum.label)
        for image, (_, datum) in zip(small, found, strict=True)
    }
    assert back == {
        (tuple(image.ravel().astype(int)), label) for image, label in zip(source.images, source.target, strict=True)
    }
    assert len(found) == len(source.target)


def test_keys_count_up(folder: Path) -> None:
    for name, count in (("digits_train_lmdb", 1500), ("digits_test_lmdb", 297)):
        assert [key for key, _ in records(folder / name)] == [b"%08d" % index for index in range(count)]


def test_split_and_order(folder: Path) -> None:
    labels = datasets.load_digits().target
    assert [datum.label for _, datum in records(folder / "digits_test_lmdb")] == list(labels[1500:])
    train = np.array([datum.label for _, datum in records(folder / "digits_train_lmdb")])
    np.testing.assert_array_equal(np.bincount(train), np.bincount(labels[:1500]))
    # Two ranks take every second record each; both must meet all ten digits about equally often.
    for rank in range(2):
        assert np.bincount(train[rank::2], minlength=10).min() > 50


def test_written_twice_is_the_same(folder: Path, tmp_path: Path) -> None:
    assert digits.main([str(tmp_path / "again")]) == 0
    for name in ("digits_train_lmdb", "digits_test_lmdb"):
        assert records(tmp_path / "again" / name) == records(folder / name)


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert digits.main([str(folder)]) == 1
    assert "exists already" in capsys.readouterr().err
