from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data import LmdbReader, LmdbWriter
from paratrain.data.lmdb import _Environment
from paratrain.errors import DataError
from tests.paths import DATA, REPOSITORY


def write(path: Path, records: dict[bytes, bytes]) -> Path:
    with LmdbWriter(path) as database:
        for key, value in records.items():
            database.put(key, value)
    return path


@pytest.mark.parametrize(
    "key_of",
    [
        lambda i: b"%08d" % i,
        lambda i: b"%08d_class/image_%d.jpg" % (i, i),
        lambda i: b"%05d" % (i + 7),
        lambda i: b"image%d" % (i * 7919 % 1009),
        lambda i: b"%d" % i,  # sorted as text, not as numbers
    ],
    ids=["numbers", "numbered", "numbered from 7", "unordered", "unpadded"],
)
def test_records_come_in_the_order_of_their_keys_from_any_place(tmp_path, key_of):
    records = {key_of(i): b"value %d" % i for i in range(1000)}
    path = write(tmp_path / "db", records)
    expected = sorted(records.items())
    with LmdbReader(path) as reader:
        assert len(reader) == 1000
        order = list(range(1000))
        random.Random(1).shuffle(order)
        for index in [999, 0, *order]:
            assert (reader.key(index), reader.get(index)) == expected[index]
        for index in (1000, -1):
            with pytest.raises(IndexError):
                reader.get(index)


@given(
    st.dictionaries(
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.integers(0, 12).map(lambda i: b"%03d" % i),
            st.tuples(st.integers(0, 9), st.sampled_from([b"", b"_a", b"7", b"0"])).map(lambda t: b"%02d%s" % t),
        ),
        st.binary(max_size=20),
        min_size=1,
        max_size=30,
    )
)
def test_any_keys_are_read_as_they_were_written(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("lmdb")
    expected = sorted(records.items())
    with LmdbReader(write(folder / "db", records)) as reader:
        assert [(reader.key(i), reader.get(i)) for i in range(len(reader))] == expected
    shutil.rmtree(folder)


def test_a_missing_number_among_numbered_keys_is_noticed(tmp_path):
    """First, last and count look like numbers 0 to 4, but 3 is missing and 1 is there twice."""
    keys = [b"00", b"01_a", b"01_b", b"02", b"04"]
    with LmdbReader(write(tmp_path / "db", {key: key for key in keys})) as reader:
        assert reader.get(3) == b"02"
        assert [reader.get(i) for i in range(5)] == keys


@pytest.mark.parametrize("key", ["%08d", "%08d_photo.jpg", "photo%d"])
@pytest.mark.parametrize(
    "indices", [range(50), range(7, 20), [5], [49, 0, 1, 2], [3, 4, 6], [9, 8, 7], range(1, 50, 3)]
)
def test_many_records_are_those_that_come_one_by_one(tmp_path, key, indices):
    path = write(tmp_path / "db", {key.encode() % i: b"value %d" % i for i in range(50)})
    with LmdbReader(path) as one_by_one, LmdbReader(path) as database:
        assert database.get_many(indices) == [one_by_one.get(index) for index in indices]
        with pytest.raises(IndexError, match="no record 50"):
            database.get_many([48, 49, 50])


def test_many_records_across_a_missing_number(tmp_path):
    keys = [b"%08d" % i for i in (0, 1, 2)] + [b"00000003x", b"00000003y", b"00000005"]
    path = write(tmp_path / "db", {key: key for key in keys})
    with LmdbReader(path) as database:
        assert database.get_many(range(2, 6)) == keys[2:]
        assert database.get_many([5, 4, 0]) == [keys[5], keys[4], keys[0]]


def test_threads_read_side_by_side(tmp_path):
    keys = sorted(b"image%d" % (i * 7919 % 10007) for i in range(3000))  # must be listed
    path = write(tmp_path / "db", {key: key * 100 for key in keys})
    with LmdbReader(path) as database, ThreadPoolExecutor(8) as pool:

        def read(seed):
            order = random.Random(seed).choices(range(3000), k=2000)
            return all(database.key(i) == keys[i] and database.get(i) == keys[i] * 100 for i in order)

        assert all(pool.map(read, range(8)))


def test_a_database_is_a_folder_or_its_file_and_may_be_read_twice_at_once(tmp_path):
    path = write(tmp_path / "db", {b"a": b"1"})
    folder, file = LmdbReader(path), LmdbReader(path / "data.mdb")
    assert folder.get(0) == file.get(0) == b"1"
    folder.close()
    folder.close()
    assert file.get(0) == b"1"
    with pytest.raises(DataError, match="closed"):
        folder.get(0)
    file.close()
    assert str(path / "data.mdb") not in _Environment.opened


def test_a_forgotten_reader_closes_its_file(tmp_path):
    path = write(tmp_path / "db", {b"a": b"1"})
    reader = LmdbReader(path)
    assert str((path / "data.mdb").resolve()) in _Environment.opened
    del reader
    gc.collect()
    assert str((path / "data.mdb").resolve()) not in _Environment.opened


def test_a_read_only_folder_is_enough_and_nothing_is_written_there(tmp_path):
    path = write(tmp_path / "db", {b"a": b"1"})
    path.chmod(0o555)
    with LmdbReader(path) as reader:
        assert reader.get(0) == b"1"
        assert os.listdir(path) == ["data.mdb"]
    path.chmod(0o755)


def test_databases_that_caffe_wrote_are_read():
    lines = (DATA / "images" / "list.txt").read_text().split("\n")
    with LmdbReader(DATA / "images" / "images_raw_lmdb") as reader:
        assert len(reader) == 24
        assert reader.key(3).decode() == "00000003_" + lines[3].split()[0]


def missing(tmp_path: Path) -> Path:
    (tmp_path / "train_lmdb").mkdir()
    return tmp_path / "trian_lmdb"


def folder_without_data(tmp_path: Path) -> Path:
    return tmp_path


def leveldb(tmp_path: Path) -> Path:
    return DATA / "images" / "images_raw_leveldb"


def other_file(tmp_path: Path) -> Path:
    (tmp_path / "data.mdb").write_bytes(b"not a database " * 1000)
    return tmp_path


def empty_file(tmp_path: Path) -> Path:
    (tmp_path / "data.mdb").touch()
    return tmp_path


def cut_off(tmp_path: Path) -> Path:
    path = write(tmp_path / "db", {b"%08d" % i: bytes(5000) for i in range(50)})
    os.truncate(path / "data.mdb", 100_000)
    return path


def no_records(tmp_path: Path) -> Path:
    return write(tmp_path / "db", {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, r"trian_lmdb: no such database \(looked up from .*holds the folders train_lmdb"),
        (folder_without_data, "holds no data.mdb"),
        (leveldb, "looks like a LevelDB"),
        (other_file, "not an LMDB file"),
        (empty_file, "empty file"),
        (cut_off, "cut off: data.mdb should have .* and has 100,000"),
        (no_records, "the database is empty"),
    ],
)
def test_what_is_no_database_is_said_to_be_none(tmp_path, make, message):
    path = make(tmp_path)
    for _ in range(2):  # the first failure must leave nothing open
        with pytest.raises(DataError, match=message) as caught:
            LmdbReader(path)
        assert str(path) in str(caught.value)


def test_a_missing_relative_path_names_the_folder_it_was_looked_up_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=f"a/b_lmdb: no such database .looked up from {tmp_path}; .*does not exist either"
    ):
        LmdbReader("a/b_lmdb")


def test_damaged_pages_are_an_error_and_no_crash(tmp_path):
    path = write(tmp_path / "db", {b"%08d" % i: bytes(1000) for i in range(500)})
    file = path / "data.mdb"
    content = bytearray(file.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*damaged"):
        LmdbReader(path)


# -- writing


def test_the_map_grows_with_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("paratrain.data.lmdb_writer._FIRST_MAP_BYTES", 1 << 16)
    records = {b"%04d" % i: random.Random(i).randbytes(3000) for i in range(2500)}
    with LmdbReader(write(tmp_path / "db", records)) as reader:
        assert [reader.get(i) for i in range(2500)] == list(records.values())


def test_a_written_database_is_an_ordinary_one(tmp_path):
    path = write(tmp_path / "deep" / "er" / "db", {b"b": b"2", b"a": b""})
    assert os.listdir(path) == ["data.mdb"]
    assert path.stat().st_mode & 0o055 == 0o055 & ~current_umask()
    environment = lmdb.open(str(path), readonly=True, lock=False)
    with environment.begin() as transaction:
        assert list(transaction.cursor()) == [(b"a", b""), (b"b", b"2")]
    environment.close()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), LmdbWriter(tmp_path / "db") as database:
        for i in range(2500):
            database.put(b"%08d" % i, b"value")
        assert os.listdir(tmp_path) == [f"db.partial-{os.getpid()}"]
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_existing_database_is_never_touched(tmp_path):
    path = write(tmp_path / "db", {b"a": b"1"})
    with pytest.raises(DataError, match="exists already"), LmdbWriter(path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="exists already"), LmdbWriter(tmp_path / "file"):
        pass
    with pytest.raises(DataError, match="exists already"), LmdbWriter(tmp_path / "new") as database:
        database.put(b"a", b"2")
        write(tmp_path / "new", {b"a": b"1"})  # somebody else is faster
    with LmdbReader(tmp_path / "new") as reader:
        assert reader.get(0) == b"1"
    assert sorted(os.listdir(tmp_path)) == ["db", "file", "new"]


def test_an_empty_folder_is_filled(tmp_path):
    with LmdbReader(write(tmp_path, {b"a": b"1"})) as reader:
        assert len(reader) == 1


@pytest.mark.parametrize(
    ("key", "message"), [(b"", "0 bytes"), (bytes(512), "has 512 bytes; LMDB takes 1 to 511"), (b"a", "comes twice")]
)
def test_keys_that_cannot_be(tmp_path, key, message):
    with pytest.raises(DataError, match=message), LmdbWriter(tmp_path / "db") as database:
        database.put(b"a", b"1")
        database.put(key, b"2")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/db: cannot be written"), LmdbWriter(tmp_path / "file" / "db"):
        pass


def test_importing_does_not_load_lmdb():
    code = "import sys, paratrain.data; assert not {'lmdb', 'cv2', 'plyvel'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
