"""LevelDB databases are read whole and in order, and left as they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from paratrain.data import LevelDbReader, LmdbReader, open_database
from paratrain.errors import DataError, MissingDependencyError
from paratrain.proto.caffe_pb2 import DataParameter
from tests.paths import DATA, REPOSITORY


@pytest.fixture
def plyvel():
    try:
        import plyvel
    except ImportError:
        plyvel = pytest.importorskip("plyvel_next", reason="no plyvel is installed (the extra 'leveldb')")
    return plyvel


@pytest.fixture(autouse=True)
def views(tmp_path, monkeypatch):
    """Where readers make their private views; whatever a test does, none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def caffes(tmp_path):
    """A copy of the database that Caffe's convert_imageset wrote."""
    return Path(shutil.copytree(DATA / "images" / "images_raw_leveldb", tmp_path / "images_leveldb"))


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def records(reader):
    return [(reader.key(i), reader.get(i)) for i in range(len(reader))]


def write(plyvel, path, values, **options):
    database = plyvel.DB(str(path), create_if_missing=True, **options)
    for key, value in values.items():
        database.put(key, value)
    database.close()
    return path


def test_caffes_database_holds_what_its_lmdb_holds_and_stays_as_it_is(plyvel, caffes):
    before = contents(caffes)
    for file in caffes.iterdir():
        file.chmod(0o444)
    caffes.chmod(0o555)
    with LmdbReader(DATA / "images" / "images_raw_lmdb") as expected:
        wanted = records(expected)
    with open_database(str(caffes), DataParameter.LEVELDB) as reader:
        assert reader.path == str(caffes)
        assert len(reader) == 24
        assert records(reader) == wanted
        assert reader.get(3) == wanted[3][1], "in any order"
        with pytest.raises(IndexError):
            reader.key(24)
        with pytest.raises(IndexError):
            reader.get(-1)
    caffes.chmod(0o755)
    assert contents(caffes) == before


def test_many_may_read_while_another_process_holds_the_lock(plyvel, tmp_path):
    """What the writer has not yet put into a table is read too."""
    wanted = {b"%08d_x" % i: bytes([i]) * 50 for i in range(40)}
    path = write(plyvel, tmp_path / "db", dict(list(wanted.items())[:20]))
    writer = plyvel.DB(str(path))
    for key, value in list(wanted.items())[20:]:
        writer.put(key, value)
    before = contents(path)
    code = (
        f"from paratrain.data import LevelDbReader\nreader = LevelDbReader({str(path)!r})\n"
        "print(len(reader), reader.key(39).decode())"
    )
    readers = [LevelDbReader(path) for _ in range(3)]
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert other.stdout.split() == ["40", "00000039_x"]
    for reader in readers:
        assert records(reader) == sorted(wanted.items())
        reader.close()
        reader.close()
        with pytest.raises(DataError, match="damaged, or closed"):
            reader.get(0)
    assert contents(path) == before
    writer.close()


def test_a_database_of_many_tables_with_overwritten_and_deleted_records(plyvel, tmp_path):
    rng = np.random.default_rng(1)
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True, write_buffer_size=1 << 16, max_file_size=1 << 20)
    wanted = {}
    for i in rng.integers(0, 700, 3000).tolist():
        key = b"k%d" % i
        if rng.random() < 0.2:
            database.delete(key)
            wanted.pop(key, None)
        else:
            wanted[key] = rng.bytes(int(rng.integers(0, 2000)))
            database.put(key, wanted[key])
    database.close()
    before = contents(tmp_path / "db")
    assert sum(name.endswith(".ldb") for name in before) > 1, "LevelDB merges some"
    with LevelDbReader(tmp_path / "db") as reader:
        assert records(reader) == sorted(wanted.items())
    assert contents(tmp_path / "db") == before


def test_files_that_are_not_part_of_the_database_are_not_written_to(plyvel, tmp_path):
    """Tables that a crash or a running writer left beside it may have the very numbers that LevelDB takes next."""
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    for i in range(10):
        database.put(b"%08d" % i, b"value %d" % i)
    path = Path(shutil.copytree(tmp_path / "db", tmp_path / "copy"))  # its records are in the journal: a crash
    database.close()
    for number in range(3, 30):
        table = path / f"{number:06d}.ldb"
        if not table.exists():
            table.write_bytes(b"something else")
    before = contents(path)
    with LevelDbReader(path) as reader:
        assert records(reader) == [(b"%08d" % i, b"value %d" % i) for i in range(10)]
    assert contents(path) == before


def cut_off(path):
    (table,) = path.glob("*.ldb")
    table.write_bytes(table.read_bytes()[:-100])


def without_table(path):
    (table,) = path.glob("*.ldb")
    table.unlink()


def flipped(path):
    (table,) = path.glob("*.ldb")
    values = bytearray(table.read_bytes())
    values[len(values) // 2] ^= 255
    table.write_bytes(values)


def without_manifest(path):
    (path / "MANIFEST-000004").unlink()


def no_manifest(path):
    (path / "MANIFEST-000004").write_bytes(b"not one of LevelDB's files " * 20)


def odd_manifest(path):
    values = bytearray((path / "MANIFEST-000004").read_bytes())
    values[-5] ^= 255
    (path / "MANIFEST-000004").write_bytes(values)


def bad_current(path):
    (path / "CURRENT").write_text("../elsewhere\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"images_leveldb: cut off: 000005.ldb should have 63,597 bytes and has 63,497"),
        (without_table, "images_leveldb: 000005.ldb is missing"),
        (flipped, r"images_leveldb: the keys cannot be read \(.*the database is damaged"),
        (without_manifest, "images_leveldb: damaged: MANIFEST-000004, which CURRENT names, is missing"),
        (no_manifest, "images_leveldb: cannot be opened as a LevelDB|images_leveldb: the MANIFEST is damaged"),
        (odd_manifest, "images_leveldb: cannot be opened as a LevelDB|images_leveldb: the MANIFEST is damaged"),
        (bad_current, r"images_leveldb: damaged: CURRENT names '../elsewhere', not a MANIFEST"),
    ],
)
def test_damage_is_named(plyvel, caffes, damage, message):
    damage(caffes)
    with pytest.raises(DataError, match=message):
        LevelDbReader(caffes)


def test_what_is_no_database_is_said_to_be_none(plyvel, tmp_path, caffes):
    with pytest.raises(DataError, match=r"image_leveldb: no such database .*holds the folders images_leveldb"):
        LevelDbReader(tmp_path / "image_leveldb")
    with pytest.raises(DataError, match="not a LevelDB: .* holds no CURRENT"):
        LevelDbReader(tmp_path)
    write(plyvel, tmp_path / "db", {})
    with pytest.raises(DataError, match="db: the database is empty"):
        LevelDbReader(tmp_path / "db")


def test_without_plyvel_the_extra_is_named(monkeypatch, caffes):
    monkeypatch.setitem(sys.modules, "plyvel", None)
    monkeypatch.setitem(sys.modules, "plyvel_next", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'paratrain\[leveldb\]'"):
        LevelDbReader(caffes)
