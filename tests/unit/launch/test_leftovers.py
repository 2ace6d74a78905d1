"""What is removed from /dev/shm after a job, and what is not."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from paratrain.launch.leftovers import list_segments, remove_leftovers


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder beside which the segments of other jobs cannot lie: in /dev/shm itself where there is one."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else tmp_path) as folder:
        yield Path(folder)


def make(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(bytes(4096))
    return path


def test_what_nobody_uses_goes_and_everything_else_stays(shared: Path) -> None:
    old = make(shared, "mpich_shm_old_0")
    before = list_segments(shared)
    assert {name for name, _ in before} == {old.name}
    left = [make(shared, name) for name in ("mpich_shm_new_0", "mpich_shm_new_1", "sm_segment.host.0.1.0")]
    others = make(shared, "psm_1234")
    open_one, mapped = make(shared, "mpich_shm_open_0"), make(shared, "mpich_shm_mapped_0")
    with open_one.open("rb"), mapped.open("r+b") as stream:
        memory = mmap.mmap(stream.fileno(), 4096)
        stream.close()
        assert remove_leftovers(before, shared) == (3, 3 * 4096)
        memory.close()
    assert sorted(shared.iterdir()) == sorted([old, others, open_one, mapped])
    assert not any(path.exists() for path in left)
    assert remove_leftovers(before, shared) == (2, 2 * 4096)
    assert remove_leftovers(before, shared) == (0, 0)


def test_a_name_that_was_taken_again_is_new(shared: Path) -> None:
    old = make(shared, "mpich_shm_a_0")
    before = list_segments(shared)
    old.rename(shared / "elsewhere")  # so that its inode stays taken
    make(shared, "mpich_shm_a_0")
    assert remove_leftovers(before, shared) == (1, 4096)


def test_no_shared_memory_at_all(tmp_path: Path) -> None:
    assert list_segments(tmp_path / "missing") == set()
    assert remove_leftovers(set(), tmp_path / "missing") == (0, 0)
