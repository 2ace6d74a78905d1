"""Writers of databases: whole or not there, whatever ends them."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.data import LevelDbReader, LevelDbWriter, LmdbReader, LmdbWriter, partial
from paratrain.data.partial import PartialFolder
from paratrain.errors import DataError
from tests.optional import need_leveldb
from tests.paths import REPOSITORY

KINDS = [pytest.param(LmdbWriter, LmdbReader, id="lmdb"), pytest.param(LevelDbWriter, LevelDbReader, id="leveldb")]
WRITERS = [pytest.param(LmdbWriter, id="lmdb"), pytest.param(LevelDbWriter, id="leveldb")]


@pytest.fixture(autouse=True)
def _plyvel(request):
    if "leveldb" in request.node.name:
        need_leveldb()


@pytest.mark.parametrize(("writer", "reader"), KINDS)
def test_what_is_put_is_read(tmp_path, writer, reader):
    records = {b"%08d" % i: os.urandom(i % 997) for i in range(3500)}
    order = list(records)
    random.Random(2).shuffle(order)
    with writer(tmp_path / "new" / "db") as database:
        for key in order:
            database.put(key, records[key])
        assert os.listdir(tmp_path / "new") == [f"db.partial-{os.getpid()}"]
    assert database.count == 3500
    with reader(tmp_path / "new" / "db") as found:
        assert [(found.key(i), found.get(i)) for i in range(len(found))] == sorted(records.items())
    assert os.listdir(tmp_path / "new") == ["db"]


@pytest.mark.parametrize(("writer", "reader"), KINDS)
@settings(max_examples=15)
@given(records=st.dictionaries(st.binary(min_size=1, max_size=511), st.binary(max_size=5000), min_size=1, max_size=30))
def test_any_keys_and_values(writer, reader, records):
    with tempfile.TemporaryDirectory() as folder:
        with writer(Path(folder) / "db") as database:
            for key, value in records.items():
                database.put(key, value)
        with reader(Path(folder) / "db") as found:
            assert [(found.key(i), found.get(i)) for i in range(len(found))] == sorted(records.items())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("order", [(b"a", b"b", b"a"), (b"b", b"a", b"b"), (b"b", b"a", b"a")])
@pytest.mark.parametrize("between", [0, 1200])
def test_a_key_that_comes_twice_is_named(tmp_path, writer, order, between):
    with pytest.raises(DataError, match=f"the key {order[2]!r} comes twice"), writer(tmp_path / "db") as database:
        database.put(order[0], b"1")
        database.put(order[1], b"2")
        for i in range(between):  # more than are committed at once
            database.put(b"c%08d" % i, b"")
        database.put(order[2], b"3")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path, writer, error):
    with pytest.raises(error), writer(tmp_path / "db") as database:
        for i in range(2500):
            database.put(b"%08d" % i, b"value")
        raise error
    assert os.listdir(tmp_path) == []


def interrupted(function, monkeypatch, where):
    """Do it, once, and be interrupted right after, or instead of it."""

    def do(*arguments, **options):
        monkeypatch.undo()
        if where == "after":
            function(*arguments, **options)
        raise KeyboardInterrupt

    return do


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("place", "where"),
    [("making", "after"), ("locking", "before"), ("closing", "after"), ("syncing", "before"), ("removing", "before")],
)
def test_an_interruption_at_the_wrong_moment_leaves_nothing(tmp_path, monkeypatch, writer, place, where):
    owner, name = {
        "making": (PartialFolder, "_make"),
        "locking": (partial, "_lock"),
        "closing": (writer, "_close"),
        "syncing": (partial, "_sync"),
        "removing": (partial.shutil, "rmtree"),
    }[place]
    with pytest.raises(KeyboardInterrupt):
        if place in ("making", "locking"):
            monkeypatch.setattr(owner, name, interrupted(getattr(owner, name), monkeypatch, where))
        with writer(tmp_path / "db") as database:
            database.put(b"key", b"value")
            monkeypatch.setattr(owner, name, interrupted(getattr(owner, name), monkeypatch, where))
            if place == "removing":
                raise ValueError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_what_exists_is_never_touched(tmp_path, writer):
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "mine").write_text("mine")
    with pytest.raises(DataError, match="exists already; remove it first"), writer(tmp_path / "db"):
        pass
    assert (tmp_path / "db" / "mine").read_text() == "mine"
    assert os.listdir(tmp_path) == ["db"]


# Writes records without end to the database argv[2] and says so once some are committed.
ENDLESS = """
    import sys
    from paratrain.data import LevelDbWriter, LmdbWriter
    writer = {"LmdbWriter": LmdbWriter, "LevelDbWriter": LevelDbWriter}[sys.argv[1]]
    with writer(sys.argv[2]) as database:
        for i in range(10**8):
            database.put(b"%010d" % i, bytes(2000))
            if i == 3000:
                print("writing", flush=True)
"""


def start_endless(writer, path):
    command = [sys.executable, "-c", textwrap.dedent(ENDLESS), writer.__name__, str(path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize(("writer", "reader"), KINDS)
def test_a_killed_writer_leaves_nothing_that_looks_finished_and_the_next_one_tidies_up(
    tmp_path, writer, reader, caplog
):
    with start_endless(writer, tmp_path / "db") as process:
        process.send_signal(signal.SIGSTOP)
        left = f"db.partial-{process.pid}"
        with caplog.at_level(logging.WARNING), writer(tmp_path / "db") as database:  # while the other is alive
            assert sorted(os.listdir(tmp_path)) == sorted([left, f"db.partial-{os.getpid()}"])
            database.put(b"a", b"1")
        assert f"db is being written by process {process.pid} too" in caplog.text
        process.kill()
    assert sorted(os.listdir(tmp_path)) == ["db", left]
    (tmp_path / "db").rename(tmp_path / "first")

    caplog.clear()
    with caplog.at_level(logging.WARNING), writer(tmp_path / "db") as database:
        database.put(b"a", b"1")
    assert f"removed {tmp_path / left}" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["db", "first"]
    with reader(tmp_path / "db") as found:
        assert (len(found), found.get(0)) == (1, b"1")


def test_a_folder_that_another_holds_is_not_removed_even_where_its_process_is_not_known(tmp_path, caplog):
    """As on a file system that two machines share: the lock says that somebody is there."""
    import fcntl

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / f"db.partial-{gone.pid}"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with caplog.at_level(logging.WARNING), PartialFolder(tmp_path / "db"):
        assert folder.is_dir()
    os.close(descriptor)
    (tmp_path / "db").rmdir()
    with PartialFolder(tmp_path / "db"):
        assert not folder.exists()


def test_what_a_process_left_that_has_ended_but_keeps_its_number_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        status = Path(f"/proc/{ended.pid}/stat")
        while ") Z " not in status.read_text():  # nobody has asked how it ended
            time.sleep(0.01)
        (tmp_path / f"db.partial-{ended.pid}").mkdir()
        with PartialFolder(tmp_path / "db"):
            assert os.listdir(tmp_path) == [f"db.partial-{os.getpid()}"]


def test_folders_that_only_look_like_leftovers_stay(tmp_path):
    kept = ["db.partial-", "db.partial-x", "db2.partial-1", "odb.partial-99999999"]
    for name in kept:
        (tmp_path / name).mkdir()
    with PartialFolder(tmp_path / "db"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "db"])


LIMITED = """
    import sys
    from paratrain.data import LevelDbWriter, LmdbWriter
    from paratrain.errors import DataError
    writer = {"LmdbWriter": LmdbWriter, "LevelDbWriter": LevelDbWriter}[sys.argv[1]]
    try:
        with writer(sys.argv[2]) as database:
            for i in range(20000):
                database.put(b"%010d" % i, i.to_bytes(4, "big") * 500)
    except DataError as error:
        print(error)
    else:
        print("written")
"""


def run_limited(writer, path, **options):
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), writer.__name__, str(path)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, **options).stdout


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path, writer):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        said = run_limited(writer, disk / "db")
        assert f"{disk}/db: cannot be written (" in said
        assert "No space left on device" in said or "Input/output error" in said
        assert f"bytes are free in {disk}. If that is too little, make room or write to another disk" in said
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_limit_on_the_size_of_files_leaves_nothing(tmp_path, writer):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    said = run_limited(writer, tmp_path / "db", preexec_fn=limit)
    assert "db: cannot be written (" in said
    assert "and a file may have 4,194,304 bytes (ulimit -f). If that is too little" in said
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    Path(tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/db: cannot be written"), PartialFolder(tmp_path / "file" / "db"):
        pass
