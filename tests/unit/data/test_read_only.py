"""Databases on file systems that may only be read: by a user who can neither write to the folder nor lock anything in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from paratrain.data.leveldb import load_plyvel
from paratrain.errors import MissingDependencyError
from tests.paths import DATA, REPOSITORY

# The superuser may write anywhere, and so becomes another user, once everything that reading imports is there.
READ = """
import os, sys
from paratrain.data import open_database
from paratrain.proto.caffe_pb2 import DataParameter

def read():
    database = open_database(sys.argv[1], DataParameter.DB.Value(sys.argv[2]))
    found = len(database), sum(len(database.get(i)) for i in range(len(database)))
    database.close()
    return found

expected = read()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    open(os.path.join(sys.argv[1], "new"), "w")
except PermissionError:
    pass
else:
    sys.exit("the folder can be written to")
assert read() == expected
print(*expected)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those that pytest makes."""
    folder = Path(tempfile.mkdtemp(prefix="paratrain-test-"))
    folder.chmod(0o755)
    yield folder
    for path in folder.iterdir():
        path.chmod(0o755)
    shutil.rmtree(folder)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("name", "backend"), [("images_raw_lmdb", "LMDB"), ("images_raw_leveldb", "LEVELDB")], ids=["LMDB", "LevelDB"]
)
def test_who_may_only_read_can_read(open_folder: Path, name: str, backend: str) -> None:
    if backend == "LEVELDB":
        try:
            load_plyvel()
        except MissingDependencyError:
            pytest.skip("no plyvel is installed (the extra 'leveldb')")
    database = Path(shutil.copytree(DATA / "images" / name, open_folder / name))
    for path in database.iterdir():
        path.chmod(0o444)
    database.chmod(0o555)
    temporary = open_folder / "temporary"
    temporary.mkdir()
    temporary.chmod(0o1777)
    before = contents(database)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(database), backend],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, found_bytes = map(int, done.stdout.split())
    assert count == 24 < found_bytes
    assert contents(database) == before
    assert list(temporary.iterdir()) == []
